//! Users of a cluster.

use super::EtcdCluster;
use crate::Outcome;

impl EtcdCluster {
    /// Creates the users of the options and turns authentication on.
    pub(super) fn create_users(&self) -> Outcome {
        let Some(password) = &self.options.root_password else {
            return Ok(());
        };
        let run = |arguments: &[&str]| self.control_as_given(arguments).map(drop);
        run(&["user", "add", &format!("root:{password}")])?;
        // The server refuses to turn authentication on before somebody has this role.
        run(&["user", "grant-role", "root", "root"])?;
        for user in &self.options.users {
            let role = &user.name;
            run(&["user", "add", &format!("{role}:{}", user.password)])?;
            run(&["role", "add", role])?;
            let grant = [
                "role",
                "grant-permission",
                "--prefix=true",
                role,
                "readwrite",
            ];
            run(&[&grant[..], &[&user.prefix]].concat())?;
            run(&["user", "grant-role", &user.name, role])?;
        }
        run(&["auth", "enable"])
    }
}
