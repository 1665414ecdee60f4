//! `cargo xtask test-all-backends`: runs everything that tests the project and counts it.
//!
//! What did not run counts as a failure: a backend without a report, a suite that ran too few
//! cases, a workspace without examples. Otherwise the project would look tested when it is not.

mod conformance;
mod examples;
mod libtest;
mod programs;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::metadata::Metadata;
use crate::services;
use libtest::Counts;

pub(crate) fn main() -> Result<ExitCode> {
    let outcome = run(&Metadata::load()?)?;
    outcome.print_report();
    // CI reads the counts from the last line, so nothing may be printed after it.
    println!("{}", outcome.counts());
    Ok(if outcome.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What ran, how it ended, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    counts: Counts,
    suites: Vec<conformance::Report>,
    problems: Vec<String>,
}

pub(crate) fn run(metadata: &Metadata) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // Tests that miss a server fail by themselves as well; this says why first.
    outcome.problems.extend(services::bring(metadata));
    run_tests(metadata, &mut outcome)?;
    examples::run(metadata, &mut outcome);
    if outcome.counts.ran() == 0 {
        outcome.problem("nothing ran: no test program printed a result");
    }
    Ok(outcome)
}

/// Unit, integration and doc tests. The conformance suites are among them, so their cases are in
/// the result lines already; the reports say which backend they belong to and why some were left out.
fn run_tests(metadata: &Metadata, outcome: &mut Outcome) -> Result<()> {
    let reports = metadata.target_directory.join("conformance");
    conformance::empty(&reports)?;
    let directory = reports.to_str().context("a target path in UTF-8")?;
    match programs::build(metadata, (conformance::REPORT_VARIABLE, directory)) {
        Ok(tests) => {
            let outputs = metadata.target_directory.join("test-output");
            programs::run_all(tests, &outputs, |ended| outcome.count(ended))?;
            outcome.count(&programs::run_doc_tests());
        }
        Err(error) => outcome.problem(format!("{error:#}; see above")),
    }

    outcome.suites = conformance::read(&reports)?;
    let problems = conformance::problems(&metadata.expected_reports(), &outcome.suites);
    outcome.problems.extend(problems);
    Ok(())
}

impl Outcome {
    fn count(&mut self, ended: &programs::Ended) {
        ended
            .output
            .lines()
            .for_each(|line| self.counts.add_line(line));
        if let Err(error) = &ended.result {
            self.problem(format!("{error:#}"));
        }
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    pub(crate) fn is_success(&self) -> bool {
        self.problems.is_empty() && self.counts.failed == 0
    }

    /// `N passed, N failed, N skipped`, on which CI relies. A run with a problem never shows
    /// fewer failures than problems, since some of them (a missing report) are no test's failure.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            failed: self.counts.failed.max(self.problems.len()),
            ..self.counts
        }
    }

    pub(crate) fn print_report(&self) {
        println!("\n{}", conformance::table(&self.suites));
        for problem in &self.problems {
            println!("problem: {problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_without_a_failed_test_is_counted_as_a_failure() {
        let mut outcome = Outcome::default();
        outcome.counts.passed = 3;
        assert!(outcome.is_success());
        outcome.problem("no report");
        assert!(!outcome.is_success());
        assert_eq!(
            outcome.counts().to_string(),
            "3 passed, 1 failed, 0 skipped"
        );
    }
}
