//! etcd servers: one node, or a cluster of several.

mod auth;
mod control;
mod metrics;
mod node;
mod options;
mod snapshot;

use std::path::Path;

use tempfile::TempDir;

pub use metrics::Metrics;
pub use node::EtcdNode;
pub use options::EtcdOptions;

use super::{Certificates, ServerProgram, eventually};
use crate::Outcome;

/// The server.
pub const PROGRAM: ServerProgram = ServerProgram {
    name: "etcd",
    variable: "LOCKTEST_ETCD",
    package: "etcd-server",
};

/// The program that operates it.
pub const CONTROL_PROGRAM: ServerProgram = ServerProgram {
    name: "etcdctl",
    variable: "LOCKTEST_ETCDCTL",
    package: "etcd-client",
};

/// How often ports are chosen anew when another process was faster.
const TRIES: usize = 5;

/// An etcd cluster of its own, on TCP ports of the loopback address, with its files in a temporary
/// directory. Gone on drop.
///
/// Elections are short: a leader that is gone is replaced in about a second.
#[derive(Debug)]
pub struct EtcdCluster {
    options: EtcdOptions,
    certificates: Option<Certificates>,
    nodes: Vec<EtcdNode>,
    // Last, so that the servers are gone before their files.
    directory: TempDir,
}

impl EtcdCluster {
    /// A single node.
    ///
    /// # Errors
    /// When a program is missing, or the server does not come up.
    ///
    /// # Blocking
    /// Until it answers, some 100 ms.
    pub fn single() -> Outcome<Self> {
        Self::start_with(1, EtcdOptions::default())
    }

    /// Three nodes, which outlive the loss of one.
    ///
    /// # Errors
    /// When a program is missing, or the nodes do not find each other.
    ///
    /// # Blocking
    /// Until they have a leader, some 200 ms.
    pub fn of_three() -> Outcome<Self> {
        Self::start_with(3, EtcdOptions::default())
    }

    /// That many nodes with these options.
    ///
    /// # Errors
    /// When a program is missing, or the nodes do not find each other; the message has the end of a
    /// log.
    ///
    /// # Blocking
    /// Until they have a leader, some 200 ms; with TLS or users longer.
    pub fn start_with(nodes: usize, options: EtcdOptions) -> Outcome<Self> {
        for _ in 1..TRIES {
            match Self::start_once(nodes, &options) {
                Err(failure) if failure.message().contains("address already in use") => {}
                other => return other,
            }
        }
        Self::start_once(nodes, &options)
    }

    fn start_once(nodes: usize, options: &EtcdOptions) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("etcd-").tempdir()?;
        let certificates = if options.tls {
            Some(Certificates::create(directory.path())?)
        } else {
            None
        };
        let cluster = Self {
            options: options.clone(),
            certificates,
            nodes: (0..nodes)
                .map(|number| EtcdNode::new(number, directory.path()))
                .collect::<Outcome<_>>()?,
            directory,
        };
        cluster.launch_all()?;
        cluster.create_users()?;
        Ok(cluster)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[EtcdNode] {
        &self.nodes
    }

    /// What clients connect to: `http://127.0.0.1:<port>` for each node, `https://localhost:<port>`
    /// with TLS.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let ports = self.nodes.iter().map(EtcdNode::port);
        ports.map(|port| self.endpoint(port)).collect()
    }

    /// What clients connect to at another port, such as that of a proxy.
    #[must_use]
    pub fn endpoint(&self, port: u16) -> String {
        match self.options.tls {
            true => format!("https://localhost:{port}"),
            false => format!("http://127.0.0.1:{port}"),
        }
    }

    /// The certificates of TLS.
    ///
    /// # Errors
    /// When it was started without TLS.
    pub fn certificates(&self) -> Outcome<&Certificates> {
        let missing = || crate::Failure::new("the cluster was started without `with_tls`");
        self.certificates.as_ref().ok_or_else(missing)
    }

    /// The place of the leader among the nodes.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// # Blocking
    /// Until there is one.
    pub fn leader(&self) -> Outcome<usize> {
        eventually("leader", || {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.answers() && node.metrics()?.sum("etcd_server_is_leader") > 0.0 {
                    return Ok(Some(number));
                }
            }
            Ok(None)
        })
    }

    /// `SIGKILL` for all nodes. What was acknowledged stays on disk.
    ///
    /// # Errors
    /// When one cannot be waited for.
    pub fn kill(&self) -> Outcome {
        self.nodes.iter().try_for_each(EtcdNode::kill)
    }

    /// Starts every node that does not run, with its data.
    ///
    /// # Errors
    /// When one does not come up.
    ///
    /// # Blocking
    /// Until there is a leader.
    pub fn start_again(&self) -> Outcome {
        self.launch_all()
    }

    /// Kills all nodes and starts them again with their data.
    ///
    /// # Errors
    /// When one does not come up.
    ///
    /// # Blocking
    /// Until there is a leader.
    pub fn restart(&self) -> Outcome {
        self.kill()?;
        self.launch_all()
    }

    /// Kills all nodes and starts them again without their data, as the same cluster: as after an
    /// operator emptied the disks. Revisions begin anew.
    ///
    /// # Errors
    /// When one does not come up.
    ///
    /// # Blocking
    /// Until there is a leader.
    pub fn restart_empty(&self) -> Outcome {
        self.kill()?;
        self.nodes.iter().try_for_each(EtcdNode::forget)?;
        self.launch_all()?;
        self.create_users()
    }

    /// Starts a node again after [`EtcdNode::kill`], with its data.
    ///
    /// # Errors
    /// When it does not come up.
    ///
    /// # Blocking
    /// Until it knows the leader; at once, if too few nodes run for one.
    pub fn start_node(&self, number: usize) -> Outcome {
        let node = &self.nodes[number];
        node.launch(&self.options, self.certificates.as_ref(), &self.members())?;
        if self.nodes.iter().filter(|node| node.runs()).count() > self.nodes.len() / 2 {
            node.wait_until_ready()?;
        }
        Ok(())
    }

    /// All at once: a node does not come up before it sees a majority.
    fn launch_all(&self) -> Outcome {
        let members = self.members();
        for node in self.nodes.iter().filter(|node| !node.runs()) {
            node.launch(&self.options, self.certificates.as_ref(), &members)?;
        }
        self.nodes.iter().try_for_each(EtcdNode::wait_until_ready)
    }

    /// `--initial-cluster`.
    fn members(&self) -> String {
        let members: Vec<String> = self.nodes.iter().map(EtcdNode::member).collect();
        members.join(",")
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }
}
