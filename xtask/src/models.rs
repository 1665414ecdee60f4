//! `cargo xtask models`: the in-process table under model checkers and a race detector.
//!
//! A model that ran too rarely proves nothing, so the number of executions of each is checked.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::command::Program;

/// Every model with its least number of executions.
struct Checker {
    cfg: &'static str,
    least: &'static [(&'static str, usize)],
}

const LOOM: Checker = Checker {
    cfg: "loom",
    least: &[
        ("two-on-one-key", 50),
        ("two-that-barge", 50),
        ("two-keys-of-one-slot", 150),
        ("two-readers", 100),
        ("a-reader-and-a-writer", 75),
        ("a-reader-and-a-writer-that-barge", 75),
        ("let-in-beside-another", 600),
        ("an-open-slot", 400),
        ("seen-or-sees", 75),
        ("an-attempt-leaves", 50),
        ("readers-leave", 50),
        ("two-keys-part", 2_000),
        ("two-keys-part-barging", 2_000),
        ("an-attempt-leaves-as-keys-part", 1_000),
        ("a-waiter-leaves", 100),
        ("a-called-waiter-leaves", 100),
        ("a-waiter-leaves-before-another", 1_500),
    ],
};

const SHUTTLE: Checker = Checker {
    cfg: "shuttle",
    least: &[
        ("two-on-one-key", 20_000),
        ("two-keys-of-one-slot", 20_000),
        ("two-readers", 20_000),
        ("a-reader-and-a-writer-that-barge", 20_000),
        ("seen-or-sees", 20_000),
        ("let-in-beside-another", 20_000),
        ("an-open-slot", 20_000),
        ("a-waiter-leaves", 20_000),
        ("a-waiter-leaves-before-another", 20_000),
        ("a-called-waiter-leaves-before-another", 20_000),
        ("an-attempt-leaves", 20_000),
        ("readers-leave", 20_000),
        ("two-keys-part", 20_000),
        ("two-keys-part-barging", 20_000),
        ("an-attempt-leaves-as-keys-part", 20_000),
        ("a-crowd", 20_000),
        ("a-crowd-that-parts", 20_000),
    ],
};

/// Real threads, under `ThreadSanitizer`.
const RACES: Checker = Checker {
    cfg: "races",
    least: &[
        ("two-on-one-key", 500),
        ("two-keys-of-one-slot", 500),
        ("two-readers", 500),
        ("a-reader-and-a-writer-that-barge", 500),
        ("seen-or-sees", 500),
        ("let-in-beside-another", 500),
        ("an-open-slot", 500),
        ("a-waiter-leaves", 500),
        ("a-waiter-leaves-before-another", 500),
        ("a-called-waiter-leaves-before-another", 500),
        ("an-attempt-leaves", 500),
        ("readers-leave", 500),
        ("two-keys-part", 500),
        ("two-keys-part-barging", 500),
        ("an-attempt-leaves-as-keys-part", 500),
        ("a-crowd", 500),
        ("a-crowd-that-parts", 500),
    ],
};

pub(crate) fn main() -> Result<ExitCode> {
    check_all()?;
    watch_races()?;
    Ok(ExitCode::SUCCESS)
}

/// The models, without the race detector, which not every kernel lets run.
pub(crate) fn check_all() -> Result<()> {
    let line = "cargo test --locked --release --package lock-threading --lib \
                --target-dir target/models";
    [LOOM, SHUTTLE]
        .iter()
        .try_for_each(|checker| checker.check(Program::new(line), ""))
}

fn watch_races() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("\nThreadSanitizer is run on Linux on x86_64 only");
        return Ok(());
    }
    // Without optimisation each access is watched as it is written. Stable Rust has the sanitizer
    // behind a flag. The suppressions are looked for from the test program's place.
    let line = "cargo test --locked --package lock-threading --lib \
                --target x86_64-unknown-linux-gnu --target-dir target/models";
    let suppressions = std::path::absolute("xtask/src/models/races.txt")?;
    let options = format!("suppressions={}:halt_on_error=1", suppressions.display());
    let watched = Program::new(line)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("TSAN_OPTIONS", options);
    let sanitizer = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";
    RACES.check(watched, sanitizer)
}

impl Checker {
    fn check(&self, tests: Program, flags: &str) -> Result<()> {
        let tests = tests.env("RUSTFLAGS", format!("--cfg {} {flags}", self.cfg));
        let tests = ["--", "--nocapture", "--test-threads", "1", "models::"]
            .into_iter()
            .fold(tests, Program::arg);
        println!("\n{tests}");
        let mut executions = BTreeMap::new();
        tests.run_watched(|line| executions.extend(executions_of(line)))?;
        for (name, least) in self.least {
            let ran = executions.get(*name).copied().unwrap_or(0);
            ensure!(
                ran >= *least,
                "{} ran {ran} executions of `{name}`, at least {least} were expected",
                self.cfg
            );
        }
        ensure!(
            executions.len() == self.least.len(),
            "{} ran {} models, {} are expected: name each with its least number of executions",
            self.cfg,
            executions.len(),
            self.least.len()
        );
        let total: usize = executions.values().sum();
        println!(
            "{}: {} models, {total} executions",
            self.cfg,
            executions.len()
        );
        Ok(())
    }
}

/// `model two-on-one-key: 1234 executions`, wherever in a line of a test's output.
fn executions_of(line: &str) -> Option<(String, usize)> {
    let (_, told) = line.split_once("model ")?;
    let (name, count) = told.split_once(": ")?;
    let count = count.trim().strip_suffix(" executions")?;
    Some((name.to_owned(), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_output_of_tests() {
        let told = |line| executions_of(line);
        let expected = Some(("a-b".to_owned(), 12));
        assert_eq!(told("model a-b: 12 executions\n"), expected);
        assert_eq!(told("test x ... model a-b: 12 executions"), expected);
        assert_eq!(told("model a-b: many executions"), None);
        assert_eq!(told("test model::x ... ok"), None);
    }
}
