//! A second process that is the same program in another role.

use std::process::Command;

use anyhow::{Context, Result};

const VARIABLE: &str = "LOCK_BENCH_ROLE";

/// A part for another process to play, with what it needs to know.
#[derive(Clone, Debug)]
pub struct Role {
    name: String,
}

impl Role {
    /// A role of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The command that starts this program in the role, with `arguments` for it.
    ///
    /// # Errors
    /// When this program cannot be found.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(arguments).env(VARIABLE, &self.name);
        Ok(command)
    }
}

/// The role that this process was started in, with its arguments; `None` in the first process.
/// Ask before anything else in `main`.
pub fn role() -> Option<(String, Vec<String>)> {
    let name = std::env::var(VARIABLE).ok()?;
    Some((name, std::env::args().skip(1).collect()))
}
