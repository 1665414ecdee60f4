//! Going back to an earlier state of a cluster, as an operator would after a disaster.

use std::process::Command;

use super::control::run;
use super::{CONTROL_PROGRAM, EtcdCluster};
use crate::Outcome;

const FILE: &str = "snapshot";

impl EtcdCluster {
    /// Saves the state, in the place of what was saved before.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn save_snapshot(&self) -> Outcome {
        let file = self.directory().join(FILE);
        let _ = std::fs::remove_file(&file);
        let endpoint = self.endpoint(self.nodes[self.leader()?].port());
        // Of one node: the tool takes no list of endpoints here.
        run(self.root_tool(&endpoint, &["snapshot", "save", &file.to_string_lossy()])?).map(drop)
    }

    /// Kills all nodes and starts them with the state of [`save_snapshot`](Self::save_snapshot):
    /// what was written since is gone, and revisions count on from there.
    ///
    /// # Errors
    /// When nothing was saved, or a node does not come up.
    ///
    /// # Blocking
    /// Until there is a leader.
    pub fn restore_snapshot(&self) -> Outcome {
        self.kill()?;
        let members = self.members();
        for node in &self.nodes {
            node.forget()?;
            let mut command = Command::new(CONTROL_PROGRAM.find()?);
            command
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore"])
                .arg(self.directory().join(FILE))
                .args(["--name", node.name(), "--initial-cluster", &members])
                .args(["--initial-advertise-peer-urls", &node.peer_url()])
                .arg("--data-dir")
                .arg(node.data());
            run(command)?;
        }
        self.start_again()
    }
}
