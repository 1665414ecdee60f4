//! `cargo xtask services`: the servers that tests of network backends need.
//!
//! Tests start servers themselves, on free ports, and only need the program: the one that a
//! variable names, one on `PATH`, or one that is installed now. A missing one is a problem, never a
//! reason to skip.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::command::Program;
use crate::metadata::Metadata;

/// What one backend's tests need.
struct Service {
    backend: &'static str,
    program: &'static str,
    /// Holds the path of another program.
    variable: &'static str,
    /// The Debian package of the program.
    package: &'static str,
}

const SERVICES: &[Service] = &[
    Service {
        backend: "redis",
        program: "redis-server",
        variable: "LOCKTEST_REDIS_SERVER",
        package: "redis-server",
    },
    Service {
        backend: "etcd",
        program: "etcd",
        variable: "LOCKTEST_ETCD",
        package: "etcd-server",
    },
    Service {
        backend: "etcd",
        program: "etcdctl",
        variable: "LOCKTEST_ETCDCTL",
        package: "etcd-client",
    },
];

pub(crate) fn main() -> Result<ExitCode> {
    let problems = bring(&Metadata::load()?);
    for problem in &problems {
        println!("problem: {problem}");
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Finds or installs what the workspace's backends need, says so, and returns what is missing. All
/// of it as soon as there is one network backend: the testkit's own tests start servers of each kind.
pub(crate) fn bring(metadata: &Metadata) -> Vec<String> {
    let backends = metadata.tested_backends();
    let is_there = |service: &Service| backends.contains(&service.backend);
    if !SERVICES.iter().any(is_there) {
        return Vec::new();
    }
    let missing = SERVICES.iter().filter_map(|service| service.bring().err());
    missing.map(|error| format!("{error:#}")).collect()
}

impl Service {
    fn bring(&self) -> Result<()> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = variable("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        self.bring_from(variable(self.variable).map(PathBuf::from), &folders)
    }

    fn bring_from(&self, given: Option<PathBuf>, folders: &[PathBuf]) -> Result<()> {
        let Self {
            backend,
            program,
            variable,
            ..
        } = self;
        if let Some(path) = given {
            if !path.is_file() {
                bail!("{variable} says {}, where no file is", path.display());
            }
            println!("{backend}: {} ({variable})", path.display());
            return Ok(());
        }
        if let Some(path) = on_path(program, folders) {
            println!("{backend}: {}", path.display());
            return Ok(());
        }
        let installer = on_path("apt-get", folders).with_context(|| self.advice())?;
        self.install(&installer).with_context(|| self.advice())?;
        on_path(program, folders).with_context(|| self.advice())?;
        Ok(())
    }

    fn install(&self, installer: &Path) -> Result<()> {
        let quietly = |words: &str| {
            let program = Program::at(installer).env("DEBIAN_FRONTEND", "noninteractive");
            words.split(' ').fold(program, Program::arg)
        };
        let install = quietly("install --yes --quiet --no-install-recommends").arg(self.package);
        println!("{}: installing it: {install}", self.backend);
        quietly("update --quiet").run()?;
        install.run()
    }

    fn advice(&self) -> String {
        let Self {
            backend,
            program,
            variable,
            package,
            ..
        } = self;
        format!(
            "the tests of {backend} need `{program}`: install it (Debian: `apt-get install {package}`), \
             or set {variable} to its path"
        )
    }
}

fn on_path(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &Service = &SERVICES[0];

    #[test]
    fn a_program_that_is_given_must_exist() {
        let given = Some(PathBuf::from("/nowhere/redis-server"));
        let error = SERVICE.bring_from(given, &[]).unwrap_err();
        assert!(
            error.to_string().contains("LOCKTEST_REDIS_SERVER says"),
            "{error}"
        );
        let given = Some(PathBuf::from("/bin/sh"));
        SERVICE.bring_from(given, &[]).unwrap();
    }

    #[test]
    fn a_program_that_cannot_be_brought_is_a_problem_that_says_what_to_install() {
        let error = SERVICE.bring_from(None, &[]).unwrap_err();
        assert!(
            error.to_string().contains("apt-get install redis-server"),
            "{error}"
        );
    }

    #[test]
    fn nothing_is_brought_for_backends_that_are_not_there() {
        let json = r#"{"target_directory": "", "workspace_root": "", "packages": []}"#;
        assert!(bring(&serde_json::from_str(json).unwrap()).is_empty());
    }
}
