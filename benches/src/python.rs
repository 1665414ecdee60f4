//! Peers written in Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The Python of a virtual environment that has `packages`, each as `name==version`. It is made
/// under `target/` once and kept; `name` tells environments apart.
///
/// # Errors
/// When there is no `python3`, or a package cannot be installed.
pub fn python_with(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let target = std::env::current_exe().context("finding this program")?;
    let target = target
        .ancestors()
        .nth(2)
        .context("this program is in no target directory")?;
    let environment = target.join(format!("python-{name}"));
    let (python, done) = (environment.join("bin/python"), environment.join("done"));
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    run(Command::new("python3")
        .arg("-m")
        .arg("venv")
        .arg(&environment))
    .context("making a virtual environment; install python3 with venv")?;
    let install = ["-m", "pip", "install", "--quiet"];
    run(Command::new(&python).args(install).args(packages))?;
    std::fs::write(&done, wanted).with_context(|| shown(&done))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
