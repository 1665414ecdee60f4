//! Reading what the conformance suite of each backend reported.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Tells the suites into which directory they write `<backend>.json`.
pub(super) const REPORT_VARIABLE: &str = "LOCKTEST_REPORT";

/// The fewest cases that must run for each backend, so that a suite that shrinks by accident
/// (a capability no longer declared, a module no longer listed) fails. Raise it as the suite grows.
const MINIMUM_CASES: &[(&str, usize)] = &[
    ("etcd", 120),
    ("etcd-cluster", 120),
    ("file", 20),
    ("redis", 120),
    ("redis-cluster", 120),
    ("redis-sentinel", 120),
    ("redis-tls", 120),
    ("sqlite", 110),
    ("threading", 20),
];

/// One suite's report.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    backend: String,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    outcome: CaseOutcome,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CaseOutcome {
    Passed,
    Failed,
    NotApplicable,
}

impl Report {
    fn count(&self, outcome: CaseOutcome) -> usize {
        self.cases
            .iter()
            .filter(|case| case.outcome == outcome)
            .count()
    }

    fn ran(&self) -> usize {
        self.cases.len() - self.count(CaseOutcome::NotApplicable)
    }

    fn failed_names(&self) -> Vec<&str> {
        let failed = self
            .cases
            .iter()
            .filter(|case| case.outcome == CaseOutcome::Failed);
        failed.map(|case| case.name.as_str()).collect()
    }

    /// How many cases were left out for each reason.
    fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for case in self
            .cases
            .iter()
            .filter(|case| case.outcome == CaseOutcome::NotApplicable)
        {
            *reasons
                .entry(case.reason.as_deref().unwrap_or("no reason given"))
                .or_default() += 1;
        }
        reasons
    }
}

/// Makes sure that no report of an earlier run is taken for one of this run.
pub(super) fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("could not remove {}", directory.display()))?;
    }
    std::fs::create_dir_all(directory)
        .with_context(|| format!("could not create {}", directory.display()))
}

/// All reports in `directory`, by backend.
pub(super) fn read(directory: &Path) -> Result<Vec<Report>> {
    let mut reports: Vec<Report> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let json = std::fs::read(&path)?;
            let report = serde_json::from_slice(&json).with_context(|| {
                format!(
                    "{} is no report as `lock-testkit` writes it",
                    path.display()
                )
            })?;
            reports.push(report);
        }
    }
    reports.sort_by(|a, b| a.backend.cmp(&b.backend));
    Ok(reports)
}

/// What is wrong with `reports`, given the backends that must have one.
pub(super) fn problems<B: AsRef<str>>(backends: &[B], reports: &[Report]) -> Vec<String> {
    let mut problems = Vec::new();
    if backends.is_empty() {
        problems.push("no crate crates/lock-* has a tests/conformance.rs: add one".to_owned());
    }
    for backend in backends.iter().map(AsRef::as_ref) {
        match reports.iter().find(|report| report.backend == backend) {
            Some(report) => problems.extend(too_few(report)),
            None => problems.push(format!(
                "backend {backend} wrote no report: let crates/lock-{backend}/tests/conformance.rs \
                 run the suite of lock-testkit, which writes it where {REPORT_VARIABLE} says"
            )),
        }
    }
    problems.extend(reports.iter().filter_map(failures));
    problems
}

fn too_few(report: &Report) -> Option<String> {
    let Report { backend, .. } = report;
    let Some((_, minimum)) = MINIMUM_CASES.iter().find(|(name, _)| name == backend) else {
        return Some(format!(
            "no minimum is stated for backend {backend}: add it to MINIMUM_CASES in {}",
            file!()
        ));
    };
    let ran = report.ran();
    (ran < *minimum).then(|| {
        format!("backend {backend} ran {ran} cases, fewer than the {minimum} that are expected")
    })
}

fn failures(report: &Report) -> Option<String> {
    let failed = report.failed_names();
    (!failed.is_empty())
        .then(|| format!("backend {} failed: {}", report.backend, failed.join(", ")))
}

/// Cases per backend, then why some do not apply.
pub(super) fn table(reports: &[Report]) -> String {
    let mut table = format!(
        "{:<16}{:>8}{:>8}{:>8}{:>16}\n",
        "backend", "ran", "passed", "failed", "not applicable"
    );
    for report in reports {
        let [passed, failed, left_out] = [
            CaseOutcome::Passed,
            CaseOutcome::Failed,
            CaseOutcome::NotApplicable,
        ]
        .map(|outcome| report.count(outcome));
        let Report { backend, .. } = report;
        let ran = report.ran();
        let _ = writeln!(
            table,
            "{backend:<16}{ran:>8}{passed:>8}{failed:>8}{left_out:>16}"
        );
    }
    for report in reports {
        for (reason, cases) in report.reasons() {
            let _ = writeln!(
                table,
                "{}: {cases} not applicable: {reason}",
                report.backend
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(backend: &str, passed: usize, rest: &str) -> Report {
        let passed = r#"{"name": "exclusive::try", "outcome": "passed"},"#.repeat(passed);
        let cases = format!("{passed}{rest}");
        let cases = cases.trim_end_matches(',');
        serde_json::from_str(&format!(
            r#"{{"backend": "{backend}", "cases": [{cases}]}}"#
        ))
        .unwrap()
    }

    const FAILED: &str = r#"{"name": "names::nul", "outcome": "failed", "reason": "was accepted"}"#;
    const LEFT_OUT: &str =
        r#"{"name": "lease::renew", "outcome": "not-applicable", "reason": "no lease"}"#;

    #[test]
    fn enough_passed_cases_are_no_problem() {
        assert!(problems(&["file"], &[report("file", 20, LEFT_OUT)]).is_empty());
    }

    #[test]
    fn a_missing_report_is_a_problem() {
        let problems = problems(&["file", "threading"], &[report("file", 20, "")]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("backend threading wrote no report"),
            "{problems:?}"
        );
    }

    #[test]
    fn cases_that_do_not_apply_do_not_count_as_run() {
        let problems = problems(&["file"], &[report("file", 19, LEFT_OUT)]);
        assert!(
            problems[0].contains("ran 19 cases, fewer than the 20"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_failed_case_is_named() {
        let problems = problems(&["file"], &[report("file", 20, FAILED)]);
        assert_eq!(problems, ["backend file failed: names::nul"]);
    }

    #[test]
    fn a_backend_without_a_minimum_is_a_problem() {
        let problems = problems(&["new"], &[report("new", 100, "")]);
        assert!(problems[0].contains("MINIMUM_CASES"), "{problems:?}");
    }

    #[test]
    fn no_backend_at_all_is_a_problem() {
        assert_eq!(problems::<&str>(&[], &[]).len(), 1);
    }

    #[test]
    fn the_table_groups_reasons() {
        let two = format!("{LEFT_OUT},{LEFT_OUT}");
        let table = table(&[report("file", 3, &two)]);
        assert!(
            table.contains("file                   3       3       0               2"),
            "{table}"
        );
        assert!(
            table.contains("file: 2 not applicable: no lease"),
            "{table}"
        );
    }
}
