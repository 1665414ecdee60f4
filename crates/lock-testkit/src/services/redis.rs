//! Redis servers: single ones, clusters, and masters under Sentinel.

mod cluster;
mod control;
mod options;
mod sentinel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

pub use cluster::RedisCluster;
pub use control::Usage;
pub use options::RedisOptions;
pub use sentinel::RedisSentinel;

use super::{Certificates, ServerProcess, ServerProgram, eventually, port};
use crate::{Failure, Outcome};

/// The program of every kind of Redis server.
pub const PROGRAM: ServerProgram = ServerProgram {
    name: "redis-server",
    variable: "LOCKTEST_REDIS_SERVER",
    package: "redis-server",
};

/// How often a port is chosen anew when another process was faster.
const TRIES: usize = 5;

/// A Redis server of its own: on a TCP port of the loopback address and on a unix socket, with its
/// files in a temporary directory. Gone on drop.
///
/// It keeps nothing over a crash unless [`RedisOptions::with_append_only`] says so.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    ports: Ports,
    certificates: Option<Certificates>,
    process: Mutex<Option<ServerProcess>>,
    // Last, so that the server is gone before its files.
    directory: TempDir,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    plain: u16,
    tls: u16,
    bus: u16,
}

impl RedisServer {
    /// A server without a password.
    ///
    /// # Errors
    /// When the program is missing, or the server does not come up.
    ///
    /// # Blocking
    /// Until it answers, some 20 ms.
    pub fn start() -> Outcome<Self> {
        Self::start_with(RedisOptions::default())
    }

    /// A server with these options.
    ///
    /// # Errors
    /// When the program is missing, or the server does not come up; the message has the end of its log.
    ///
    /// # Blocking
    /// Until it answers, some 20 ms; with TLS 200 ms.
    pub fn start_with(options: RedisOptions) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("redis-").tempdir()?;
        let certificates = if options.tls {
            Some(Certificates::create(directory.path())?)
        } else {
            None
        };
        let mut server = Self {
            options,
            ports: Ports::choose()?,
            certificates,
            process: Mutex::default(),
            directory,
        };
        for _ in 1..TRIES {
            match server.start_again() {
                Err(failure) if failure.message().contains("Address already in use") => {
                    server.ports = Ports::choose()?;
                    std::fs::remove_file(server.file("log"))?;
                }
                other => return other.map(|()| server),
            }
        }
        server.start_again()?;
        Ok(server)
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.plain
    }

    /// The port for TLS.
    ///
    /// # Errors
    /// When it was started without TLS.
    pub fn tls_port(&self) -> Outcome<u16> {
        self.certificates().map(|_| self.ports.tls)
    }

    /// `redis://127.0.0.1:<port>/`, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.ports.plain)
    }

    /// `redis+unix://<path>`, without credentials.
    #[must_use]
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// `rediss://localhost:<port>/`, without credentials.
    ///
    /// # Errors
    /// When it was started without TLS.
    pub fn tls_url(&self) -> Outcome<String> {
        Ok(format!("rediss://localhost:{}/", self.tls_port()?))
    }

    /// The path of the unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("socket")
    }

    /// The certificates of TLS.
    ///
    /// # Errors
    /// When it was started without TLS.
    pub fn certificates(&self) -> Outcome<&Certificates> {
        let missing = || Failure::new("the server was started without `with_tls`");
        self.certificates.as_ref().ok_or_else(missing)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `SIGSTOP`: connections stay open, and nothing is answered until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> Outcome {
        self.running()?.as_ref().map_or(Ok(()), ServerProcess::stop)
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Outcome {
        let process = self.running()?;
        process.as_ref().map_or(Ok(()), ServerProcess::resume)
    }

    /// `SIGKILL`. What it holds is lost, but for what an append-only file has.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&self) -> Outcome {
        match self.lock().take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again after [`kill`](Self::kill), on the same ports, with what it has on disk.
    ///
    /// # Errors
    /// When it does not come up.
    ///
    /// # Blocking
    /// Until it answers.
    pub fn start_again(&self) -> Outcome {
        let program = PROGRAM.find()?;
        let settings = self.file("redis.conf");
        // Sentinel keeps its state there, which a restart must not undo.
        if !self.options.sentinel || !settings.exists() {
            std::fs::write(&settings, self.settings())?;
        }
        let mut command = Command::new(program);
        command.arg(&settings).current_dir(self.directory());
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        let mut process = ServerProcess::start(command)?;
        let up = eventually("answer of a new server", || match process.ended()? {
            Some(status) => Ok(Some(Err(self.failure(&format!("ended ({status})"))))),
            None => Ok(self.answers().then_some(Ok(()))),
        });
        up.map_err(|failure| self.failure(failure.message()))
            .flatten()?;
        *self.lock() = Some(process);
        Ok(())
    }

    /// Restarts it with its data, as an orderly operator would.
    ///
    /// # Errors
    /// When it does not save, or does not come up.
    ///
    /// # Blocking
    /// Until it answers again.
    pub fn restart(&self) -> Outcome {
        self.query::<()>("SAVE")?;
        self.kill()?;
        self.start_again()
    }

    /// Restarts it without its data, as after the loss of a disk.
    ///
    /// # Errors
    /// When it does not come up.
    ///
    /// # Blocking
    /// Until it answers again.
    pub fn restart_empty(&self) -> Outcome {
        self.kill()?;
        for entry in std::fs::read_dir(self.directory())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".rdb") {
                std::fs::remove_file(&path)?;
            } else if name.starts_with("appendonly") {
                std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path))?;
            }
        }
        self.start_again()
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process_id(&self) -> Outcome<u32> {
        let process = self.running()?;
        Ok(process.as_ref().map_or(0, ServerProcess::id))
    }

    fn settings(&self) -> String {
        let authority = self.certificates.as_ref();
        let tls = authority.map(|certificates| (self.ports.tls, certificates));
        self.options
            .settings(self.directory(), self.ports.plain, self.ports.bus, tls)
    }

    fn running(&self) -> Outcome<MutexGuard<'_, Option<ServerProcess>>> {
        let process = self.lock();
        ensure!(process.is_some(), "the server was killed");
        Ok(process)
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServerProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn failure(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        Failure::new(format!(
            "redis-server: {what}; its log:\n{}",
            tail.join("\n")
        ))
    }
}

impl Ports {
    fn choose() -> Outcome<Self> {
        Ok(Self {
            plain: port::free()?,
            tls: port::free()?,
            bus: port::free()?,
        })
    }
}
