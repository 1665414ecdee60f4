//! redis-py, the client of those who come from Python.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lock_benches::python_with;

/// A Python that has redis-py and its fast parser.
pub(crate) struct Client {
    python: PathBuf,
}

impl Client {
    pub(crate) fn prepare() -> Result<Self> {
        let python = python_with("redis", &["redis==8.1.0", "hiredis==3.5.0"])?;
        Ok(Self { python })
    }

    /// The median pair of its synchronous lock, in microseconds.
    pub(crate) fn uncontended(&self, url: &str, pairs: usize) -> Result<f64> {
        let output = Command::new(&self.python)
            .arg("-c")
            .arg(include_str!("uncontended.py"))
            .args([&url.replace("redis+unix:", "unix:"), &pairs.to_string()])
            .output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-py failed: {message}");
        let printed = String::from_utf8_lossy(&output.stdout);
        printed.trim().parse().context("reading what redis-py took")
    }
}
