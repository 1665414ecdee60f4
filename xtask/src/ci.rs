//! `cargo xtask ci`: all checks, then all tests.
//!
//! A failed step does not stop the later ones: one run should tell everything there is to fix.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::command::Program;
use crate::metadata::Metadata;
use crate::{models, test_all_backends, tidy};

pub(crate) fn main() -> Result<ExitCode> {
    let metadata = Metadata::load()?;
    let mut steps = Steps::default();

    let format = Program::new("cargo fmt --all --check");
    steps.run("format", "cargo fmt --all", || format.run());
    for lint in lints(&metadata) {
        steps.run("clippy", &lint, || lint.run());
    }
    let docs = Program::new("cargo doc --locked --workspace --no-deps --document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings");
    steps.run("docs", &docs, || docs.run());
    steps.run("tidy", "cargo xtask tidy", || {
        tidy::check(&metadata.workspace_root)
    });

    steps.run("models", "cargo xtask models", models::check_all);

    let mut outcome = None;
    steps.run("test-all-backends", "cargo xtask test-all-backends", || {
        let tested = outcome.insert(test_all_backends::run(&metadata)?);
        tested.print_report();
        if tested.is_success() {
            Ok(())
        } else {
            bail!("not everything passed")
        }
    });

    let passed = steps.print_summary();
    // CI reads the counts from the last line, so nothing may be printed after it.
    println!("{}", outcome.unwrap_or_default().counts());
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The whole workspace, then the facade with each backend alone: features must only add.
fn lints(metadata: &Metadata) -> Vec<Program> {
    let mut lints = vec!["--workspace --all-targets".to_owned()];
    if let Some(facade) = metadata.package("lock-manager") {
        let alone = "--package lock-manager --no-default-features";
        lints.push(alone.to_owned());
        lints.extend(
            facade
                .named_features()
                .map(|name| format!("{alone} --features {name}")),
        );
    }
    lints
        .iter()
        .map(|what| Program::new(&format!("cargo clippy --locked {what} -- -D warnings")))
        .collect()
}

/// Runs named steps and remembers how to repeat those that failed.
#[derive(Debug, Default)]
struct Steps {
    repeat: Vec<String>,
}

impl Steps {
    fn run(&mut self, heading: &str, repeat: impl Display, step: impl FnOnce() -> Result<()>) {
        println!("\n== {heading}: {repeat}");
        let start = Instant::now();
        let result = step();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("-- {heading}: passed in {seconds:.1} s"),
            Err(error) => {
                println!("-- {heading}: FAILED in {seconds:.1} s: {error:#}");
                println!("   to repeat or fix: {repeat}");
                self.repeat.push(format!("{heading}: {repeat}"));
            }
        }
    }

    /// Returns whether every step passed.
    fn print_summary(&self) -> bool {
        if self.repeat.is_empty() {
            println!("\nevery step passed");
            return true;
        }
        println!("\n{} failed; to repeat or fix:", count(self.repeat.len()));
        for line in &self.repeat {
            println!("  {line}");
        }
        false
    }
}

fn count(steps: usize) -> String {
    if steps == 1 {
        "1 step".to_owned()
    } else {
        format!("{steps} steps")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_remembered_with_its_command_and_the_next_one_still_runs() {
        let mut steps = Steps::default();
        let mut second_ran = false;
        steps.run("first", "repeat first", || bail!("broken"));
        steps.run("second", "repeat second", || {
            second_ran = true;
            Ok(())
        });
        assert!(second_ran);
        assert_eq!(steps.repeat, ["first: repeat first"]);
        assert!(!steps.print_summary());
    }

    #[test]
    fn the_facade_is_linted_with_no_backend_and_with_each_alone() {
        let json = r#"{"target_directory": "", "workspace_root": "", "packages": [
            {"name": "lock-manager", "targets": [],
             "features": {"default": ["file"], "file": [], "threading": []}}]}"#;
        let lints = lints(&serde_json::from_str(json).unwrap());
        let features: Vec<String> = lints.iter().map(ToString::to_string).collect();
        assert_eq!(features.len(), 4);
        assert!(features[1].contains("--no-default-features --"));
        assert!(features[2].contains("--features file"));
        assert!(features[3].contains("--features threading"));
    }
}
