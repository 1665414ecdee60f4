//! Running the workspace's test programs side by side.
//!
//! Most of their time is spent waiting, for leases to run out and for servers to start, so there
//! are as many at a time as the machine has cores. `cargo test` would run one after the other.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::command::Program;
use crate::metadata::Metadata;

/// The slowest takes some three minutes; the limit only catches one that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// A compiled test program.
#[derive(Debug)]
pub(super) struct TestProgram {
    program: Program,
    /// The command that builds and runs it alone.
    repeat: String,
}

/// How one program, or the doc tests, ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) output: String,
    pub(super) result: Result<()>,
}

/// Compiles all test programs of the workspace. They run with this variable.
pub(super) fn build(
    metadata: &Metadata,
    variable: (&'static str, &str),
) -> Result<Vec<TestProgram>> {
    let build = Program::new("cargo test --locked --workspace --no-run")
        .arg("--message-format=json-render-diagnostics");
    println!("running {build}");
    let mut tests = Vec::new();
    for line in String::from_utf8(build.read()?)?.lines() {
        let message: Message = serde_json::from_str(line).context("a line of cargo's build")?;
        let Some(executable) = message.executable.filter(|_| message.profile.test) else {
            continue;
        };
        let package = metadata.package_at(&message.manifest_path)?;
        let directory = package.directory()?;
        tests.push(TestProgram {
            program: Program::at(&executable)
                .within(directory)
                .env(variable.0, variable.1),
            repeat: format!(
                "cargo test --locked --package {} {}",
                package.name,
                message.target.selection()
            ),
        });
    }
    ensure!(!tests.is_empty(), "`{build}` built no test program");
    // The suites take longest: the last program to end should not be one that began last.
    tests.sort_by_key(|test: &TestProgram| !test.repeat.contains("--test conformance"));
    Ok(tests)
}

/// Runs all, prints the output of each as it ends, and passes it on. What one writes is in a file
/// of `outputs` while it runs.
pub(super) fn run_all(
    tests: Vec<TestProgram>,
    outputs: &Path,
    on_end: impl FnMut(&Ended) + Send,
) -> Result<()> {
    std::fs::create_dir_all(outputs)?;
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    println!("running {} test programs, {lanes} at a time", tests.len());
    let (next, on_end) = (Mutex::new(tests.into_iter()), Mutex::new(on_end));
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let file = outputs.join(format!("{lane}.txt"));
            let (next, on_end) = (&next, &on_end);
            scope.spawn(move || {
                while let Some(test) = take(next) {
                    let ended = test.run(&file);
                    let mut on_end = on_end.lock().unwrap_or_else(PoisonError::into_inner);
                    println!("{}", ended.output);
                    on_end(&ended);
                }
            });
        }
    });
    Ok(())
}

/// Doc tests have no program of their own that could be started.
pub(super) fn run_doc_tests() -> Ended {
    let tests = Program::new("cargo test --locked --workspace --no-fail-fast --doc");
    println!("\nrunning {tests}");
    let mut output = String::new();
    let result = tests.run_watched(|line| output.push_str(line));
    Ended { output, result }
}

fn take<T>(next: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    next.lock().unwrap_or_else(PoisonError::into_inner).next()
}

impl TestProgram {
    fn run(&self, file: &Path) -> Ended {
        let start = Instant::now();
        let result = self.program.run_into(file, TIME_LIMIT);
        let seconds = start.elapsed().as_secs_f64();
        let told = std::fs::read(file).unwrap_or_default();
        Ended {
            output: format!(
                "\n{}: {seconds:.1} s\n{}",
                self.repeat,
                String::from_utf8_lossy(&told)
            ),
            result: result.with_context(|| format!("repeat: {}", self.repeat)),
        }
    }
}

/// A message of `cargo test --message-format=json`. Those that tell of no executable have less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: PathBuf,
    profile: Profile,
    target: Target,
}

#[derive(Debug, Default, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

impl Target {
    /// What selects it on cargo's command line.
    fn selection(&self) -> String {
        match self.kind.first().map(String::as_str) {
            Some(kind @ ("test" | "bin" | "example")) => format!("--{kind} {}", self.name),
            _ => "--lib".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> Message {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_test_program_is_told_from_other_messages() {
        let test = message(
            r#"{"reason": "compiler-artifact", "manifest_path": "/x/Cargo.toml",
                "target": {"kind": ["test"], "name": "conformance", "doc": false},
                "profile": {"opt_level": "0", "test": true}, "executable": "/t/conformance-1"}"#,
        );
        assert_eq!(test.target.selection(), "--test conformance");
        assert!(test.profile.test && test.executable.is_some());
        let end = message(r#"{"reason": "build-finished", "success": true}"#);
        assert!(end.executable.is_none());
    }

    #[test]
    fn every_program_runs_and_a_failed_one_says_how_to_repeat_it() {
        let script = |text: &str| TestProgram {
            program: Program::new("sh -c").arg(text),
            repeat: format!("again: {text}"),
        };
        let scripts = (0..5).map(|number| script(&format!("echo {number}; exit {number}")));
        let outputs = tempfile::tempdir().unwrap();
        let mut problems = Vec::new();
        let count = |ended: &Ended| {
            let problem = ended
                .result
                .as_ref()
                .err()
                .map(|error| format!("{error:#}"));
            problems.push((ended.output.clone(), problem));
        };
        run_all(scripts.collect(), outputs.path(), count).unwrap();
        problems.sort();
        assert_eq!(problems.len(), 5);
        assert!(problems[0].0.ends_with("s\n0\n") && problems[0].1.is_none());
        let problem = problems[4].1.as_deref().unwrap();
        assert!(problem.contains("again: echo 4"), "{problem}");
    }
}
