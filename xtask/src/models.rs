//! `cargo xtask models`: the in-process table under model checkers and a race detector.
//!
//! A model that ran too rarely proves nothing, so the number of executions of each is checked.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

use crate::command::Program;

/// Every model with its least number of executions.
struct Checker {
    cfg: &'static str,
    least: &'static [(&'static str, usize)],
}

const CHECKERS: [Checker; 2] = [
    Checker {
        cfg: "loom",
        least: &[
            ("two-on-one-key", 50),
            ("two-that-barge", 50),
            ("two-keys-of-one-slot", 150),
            ("an-open-slot", 400),
            ("seen-or-sees", 75),
            ("an-attempt-leaves", 50),
            ("a-waiter-leaves", 100),
            ("a-called-waiter-leaves", 100),
            ("a-waiter-leaves-before-another", 1_500),
        ],
    },
    Checker {
        cfg: "shuttle",
        least: &[
            ("two-on-one-key", 20_000),
            ("two-keys-of-one-slot", 20_000),
            ("an-open-slot", 20_000),
            ("a-waiter-leaves", 20_000),
            ("a-waiter-leaves-before-another", 20_000),
            ("a-called-waiter-leaves-before-another", 20_000),
            ("a-crowd", 20_000),
        ],
    },
];

/// The tests with real threads that the race detector watches, and how many there are at least.
const RACES: (&str, usize) = ("keyed", 13);

pub(crate) fn main() -> Result<ExitCode> {
    check_all()?;
    races()?;
    Ok(ExitCode::SUCCESS)
}

/// The models, without the race detector.
pub(crate) fn check_all() -> Result<()> {
    CHECKERS.iter().try_for_each(check)
}

fn check(checker: &Checker) -> Result<()> {
    let line = "cargo test --locked --release --package lock-threading --lib \
                --target-dir target/models -- --nocapture --test-threads 1 models::";
    let tests = Program::new(line).env("RUSTFLAGS", format!("--cfg {}", checker.cfg));
    println!("\n{tests}");
    let mut executions = BTreeMap::new();
    tests.run_watched(|line| executions.extend(executions_of(line)))?;
    for (name, least) in checker.least {
        let ran = executions.get(*name).copied().unwrap_or(0);
        ensure!(
            ran >= *least,
            "{} ran {ran} executions of `{name}`, at least {least} were expected",
            checker.cfg
        );
    }
    ensure!(
        executions.len() == checker.least.len(),
        "{} ran {} models, {} are expected: name each with its least number of executions",
        checker.cfg,
        executions.len(),
        checker.least.len()
    );
    let total: usize = executions.values().sum();
    println!(
        "{}: {} models, {total} executions",
        checker.cfg,
        executions.len()
    );
    Ok(())
}

/// `model two-on-one-key: 1234 executions`, wherever in a line of a test's output.
fn executions_of(line: &str) -> Option<(String, usize)> {
    let (_, told) = line.split_once("model ")?;
    let (name, count) = told.split_once(": ")?;
    let count = count.trim().strip_suffix(" executions")?;
    Some((name.to_owned(), count.parse().ok()?))
}

/// ThreadSanitizer, which stable Rust has behind a flag.
fn races() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("\nThreadSanitizer is run on Linux on x86_64 only");
        return Ok(());
    }
    let (test, least) = RACES;
    // Without optimisation each access is watched as it is written.
    let line = format!(
        "cargo test --locked --package lock-threading --test {test} \
         --target x86_64-unknown-linux-gnu --target-dir target/races"
    );
    let watched = Program::new(&line)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        )
        .env(
            "TSAN_OPTIONS",
            "suppressions=xtask/src/models/races.txt:halt_on_error=1",
        );
    println!("\n{watched}");
    let mut passed = 0;
    watched.run_watched(|line| {
        let ok = line.starts_with("test ") && line.trim_end().ends_with("... ok");
        passed += usize::from(ok);
    })?;
    if passed < least {
        bail!("ThreadSanitizer watched {passed} tests, at least {least} were expected");
    }
    println!("ThreadSanitizer: {passed} tests, no race");
    Ok(())
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
