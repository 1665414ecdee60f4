//! Running every example: one that only compiles may still mislead its readers.

use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use crate::command::Program;
use crate::metadata::{Metadata, Package};

/// Examples are read by people and should end in moments; the limit only catches one that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(metadata: &Metadata, outcome: &mut Outcome) {
    let Some(package) = metadata.package("lock-examples") else {
        outcome.problem("the workspace has no package `lock-examples`");
        return;
    };
    if package.examples().next().is_none() {
        outcome.problem("package `lock-examples` lists no [[example]]");
        return;
    }
    match build() {
        Ok(()) => run_each(metadata, package, outcome),
        Err(error) => outcome.problem(error.to_string()),
    }
}

fn build() -> Result<()> {
    // As the tests were built: another selection of packages would mean other features.
    Program::new("cargo build --locked --workspace --examples").run()
}

/// Started directly rather than through cargo, so that one that hangs can be ended.
fn run_each(metadata: &Metadata, package: &Package, outcome: &mut Outcome) {
    let directory = metadata.target_directory.join("debug/examples");
    for name in package.examples() {
        println!("\nrunning example {name}");
        match Program::at(&directory.join(name)).run_within(TIME_LIMIT) {
            Ok(()) => outcome.counts.passed += 1,
            Err(error) => {
                outcome.counts.failed += 1;
                outcome.problem(format!(
                    "example {name}: {error:#}; repeat: cargo run --package lock-examples --example {name}"
                ));
            }
        }
    }
}
