//! Looking at a cluster and breaking it through its own tool.

use std::process::{Command, Stdio};

use super::{CONTROL_PROGRAM, EtcdCluster};
use crate::services::eventually;
use crate::{Failure, Outcome};

/// As much as fits into one request of a server with default limits.
const LARGE_VALUE: usize = 1024 * 1024;

impl EtcdCluster {
    /// Runs `etcdctl` as root, past every proxy, and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message has what it said.
    ///
    /// # Blocking
    /// Until the cluster answers, at most five seconds.
    pub fn control(&self, arguments: &[&str]) -> Outcome<String> {
        run(self.root_tool(&self.answering(), arguments)?)
    }

    /// The revision of the store.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn revision(&self) -> Outcome<i64> {
        let printed = self.control(&["get", "revision", "--write-out=json"])?;
        let answer: serde_json::Value = serde_json::from_str(&printed)?;
        let missing = || Failure::new(format!("no revision in {printed}"));
        answer["header"]["revision"].as_i64().ok_or_else(missing)
    }

    /// The names of all keys that start with `prefix`, one a line as the tool prints them.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn keys(&self, prefix: &str) -> Outcome<Vec<String>> {
        let printed = self.control(&["get", prefix, "--prefix", "--keys-only"])?;
        let lines = printed.lines().filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// The leases that live, in hexadecimal.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn leases(&self) -> Outcome<Vec<String>> {
        let printed = self.control(&["lease", "list"])?;
        Ok(printed.lines().skip(1).map(str::to_owned).collect())
    }

    /// Ends a lease, and with it every key that is attached to it.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn revoke(&self, lease: &str) -> Outcome {
        self.control(&["lease", "revoke", lease]).map(drop)
    }

    /// Forgets the history before the current revision: a watcher behind it is cancelled.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn compact(&self) -> Outcome {
        let revision = self.revision()?.to_string();
        self.control(&["compaction", "--physical", &revision])
            .map(drop)
    }

    /// Writes until the server refuses: from then on it takes no new data. Needs
    /// [`with_quota`](super::EtcdOptions::with_quota).
    ///
    /// # Errors
    /// When it never refuses.
    pub fn fill(&self) -> Outcome {
        let file = self.directory().join("filling");
        std::fs::write(&file, vec![b'x'; LARGE_VALUE])?;
        let mut number = 0;
        eventually("refusal of a full server", || {
            let name = format!("filling/{number}");
            number += 1;
            let mut command = self.root_tool(&self.answering(), &["put", &name])?;
            command.stdin(std::fs::File::open(&file)?);
            match run(command) {
                Err(refused) if refused.message().contains("database space exceeded") => {
                    Ok(Some(()))
                }
                other => other.map(|_| None),
            }
        })
    }

    /// Ends what [`fill`](Self::fill) did.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn make_room(&self) -> Outcome {
        self.control(&["del", "filling/", "--prefix"])?;
        self.compact()?;
        self.control(&["defrag"])?;
        self.control(&["alarm", "disarm"]).map(drop)
    }

    /// The same, as nobody, or as a user whom `arguments` name.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    ///
    /// # Blocking
    /// As [`control`](Self::control).
    pub fn control_as_given(&self, arguments: &[&str]) -> Outcome<String> {
        run(self.tool(&self.answering(), arguments)?)
    }

    /// The tool with an endpoint, or several separated by commas, and with certificates.
    pub(super) fn tool(&self, endpoints: &str, arguments: &[&str]) -> Outcome<Command> {
        let mut command = Command::new(CONTROL_PROGRAM.find()?);
        command
            .env("ETCDCTL_API", "3")
            .args(arguments)
            .args(["--endpoints", endpoints])
            .stdin(Stdio::null());
        if let Some(certificates) = &self.certificates {
            let (certificate, key) = certificates.client();
            command.arg("--cacert").arg(certificates.authority());
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        Ok(command)
    }

    /// The same as root, if there are users.
    pub(super) fn root_tool(&self, endpoints: &str, arguments: &[&str]) -> Outcome<Command> {
        let mut command = self.tool(endpoints, arguments)?;
        if let Some(password) = &self.options.root_password {
            command.args(["--user", &format!("root:{password}")]);
        }
        Ok(command)
    }

    fn answering(&self) -> String {
        let nodes = self.nodes.iter().filter(|node| node.answers());
        let endpoints: Vec<String> = nodes.map(|node| self.endpoint(node.port())).collect();
        endpoints.join(",")
    }
}

pub(super) fn run(mut command: Command) -> Outcome<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
