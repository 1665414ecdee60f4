//! One server of a cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{EtcdOptions, Metrics, PROGRAM};
use crate::services::{Certificates, ServerProcess, eventually, port};
use crate::{Failure, Outcome};

/// One server of an [`EtcdCluster`](super::EtcdCluster).
#[derive(Debug)]
pub struct EtcdNode {
    name: String,
    ports: Ports,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
}

#[derive(Debug, Default)]
struct State {
    process: Option<ServerProcess>,
    stopped: bool,
}

impl EtcdNode {
    pub(super) fn new(number: usize, directory: &Path) -> Outcome<Self> {
        let name = format!("node{number}");
        let folder = directory.join(&name);
        std::fs::create_dir(&folder)?;
        Ok(Self {
            ports: Ports {
                client: port::free()?,
                peer: port::free()?,
                metrics: port::free()?,
            },
            name,
            folder,
            state: Mutex::default(),
        })
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.client
    }

    /// `SIGSTOP`: connections stay open, and nothing is answered until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> Outcome {
        self.signal(ServerProcess::stop, true)
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Outcome {
        self.signal(ServerProcess::resume, false)
    }

    /// `SIGKILL`. What was acknowledged stays on disk.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&self) -> Outcome {
        match std::mem::take(&mut *self.state()).process {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// What it has counted since it was started.
    ///
    /// # Errors
    /// When it does not answer.
    ///
    /// # Blocking
    /// Until it answers, at most two seconds.
    pub fn metrics(&self) -> Outcome<Metrics> {
        Metrics::read(self.ports.metrics)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process_id(&self) -> Outcome<u32> {
        let state = self.state();
        let process = state.process.as_ref().ok_or_else(|| self.is_gone())?;
        Ok(process.id())
    }

    /// Whether it was started and not killed.
    pub(super) fn runs(&self) -> bool {
        self.state().process.is_some()
    }

    /// Whether it runs and is not stopped.
    pub(super) fn answers(&self) -> bool {
        let state = self.state();
        state.process.is_some() && !state.stopped
    }

    /// Its entry in `--initial-cluster`.
    pub(super) fn member(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.peer)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Removes its data.
    pub(super) fn forget(&self) -> Outcome {
        match std::fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn launch(
        &self,
        options: &EtcdOptions,
        certificates: Option<&Certificates>,
        members: &str,
    ) -> Outcome {
        let scheme = if options.tls { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.ports.client);
        let election = options.election.as_millis();
        let mut command = Command::new(PROGRAM.find()?);
        command
            .args(["--name", &self.name, "--initial-cluster", members])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &self.peer_url()])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .arg("--data-dir")
            .arg(self.data())
            .arg(format!(
                "--listen-metrics-urls=http://127.0.0.1:{}",
                self.ports.metrics
            ))
            .arg(format!("--election-timeout={election}"))
            .arg(format!("--heartbeat-interval={}", election / 10))
            .args(["--logger", "zap", "--log-outputs", "stderr"]);
        if let Some(bytes) = options.quota {
            command.arg(format!("--quota-backend-bytes={bytes}"));
        }
        if let Some(certificates) = certificates {
            let (certificate, key) = certificates.server();
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(certificates.authority())
                .arg("--cert-file")
                .arg(certificate)
                .arg("--key-file")
                .arg(key);
        }
        let log = std::fs::File::create(self.log())?;
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        *self.state() = State {
            process: Some(ServerProcess::start(command)?),
            stopped: false,
        };
        Ok(())
    }

    /// Until it serves clients and knows a leader.
    pub(super) fn wait_until_ready(&self) -> Outcome {
        let up = eventually("etcd that knows its leader", || {
            let mut state = self.state();
            let process = state.process.as_mut().ok_or_else(|| self.is_gone())?;
            if let Some(status) = process.ended()? {
                return Ok(Some(Err(self.failure(&format!("ended ({status})")))));
            }
            drop(state);
            Ok(Metrics::is_healthy(self.ports.metrics).then_some(Ok(())))
        });
        up.map_err(|failure| self.failure(failure.message()))
            .flatten()
    }

    fn signal(&self, send: fn(&ServerProcess) -> Outcome, stopped: bool) -> Outcome {
        let mut state = self.state();
        let process = state.process.as_ref().ok_or_else(|| self.is_gone())?;
        send(process)?;
        state.stopped = stopped;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn is_gone(&self) -> Failure {
        Failure::new(format!("{} does not run", self.name))
    }

    fn failure(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        Failure::new(format!(
            "{}: {what}; its log:\n{}",
            self.name,
            tail.join("\n")
        ))
    }
}
