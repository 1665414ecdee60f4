//! Running every example: one that only compiles may still mislead its readers.

use std::time::Duration;

use super::Outcome;
use crate::command::Program;
use crate::metadata::Metadata;

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
    // The tests' build has made them. Not through cargo, so that one that hangs can be ended.
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
