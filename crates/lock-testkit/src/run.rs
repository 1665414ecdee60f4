//! A backend's whole conformance test.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use lock_core::{Capabilities, Scope};

use crate::case::Case;
use crate::process;
use crate::report::Report;
use crate::{Failure, Kit, Outcome, suite};

/// How long what should happen soon may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Trials that run side by side where they mostly wait.
const WAITING_TRIALS: usize = 6;
/// Fewer cases than this concern no backend: something is wrong with the suite.
const AT_LEAST: usize = 40;
/// Threads that a process starts once, when first needed: lock I/O and its callbacks.
const LAZY_THREADS: usize = 4;
/// Descriptors that a process opens once: the event queues of lock I/O.
const LAZY_DESCRIPTORS: usize = 8;

/// Runs every case of the suite that concerns the kit's backend, and fails unless all pass.
///
/// Call it from the `main` of a test with `harness = false`; it takes the arguments of the standard
/// test harness. The same program serves as the second process of a trial. Cases that do not apply
/// are listed as ignored, with the reason. With `LOCKTEST_REPORT=<directory>` in the environment
/// the outcomes are also written to `<directory>/<backend>.json`.
///
/// # Blocking
/// Until all trials are over.
#[must_use]
pub fn main(kit: impl Kit) -> ExitCode {
    if let Some(spec) = process::spec_of_this_process() {
        return process::serve(&kit, &spec);
    }
    let mut arguments = Arguments::from_args();
    match run(Arc::new(kit), &mut arguments) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(kit: Arc<dyn Kit>, arguments: &mut Arguments) -> Outcome<ExitCode> {
    // Made and closed first: what a process starts once is there before the count.
    let capabilities = kit.client()?.capabilities();
    if capabilities.scope == Scope::Network {
        // Its trials wait for leases and servers most of their time.
        arguments.test_threads.get_or_insert(WAITING_TRIALS);
    }
    let arguments = &*arguments;
    let report = Arc::new(Report::default());
    let everybody = Arc::new(RwLock::new(()));
    let trials: Vec<Trial> = suite::cases()
        .into_iter()
        .map(|case| trial(case, &kit, &capabilities, &report, &everybody))
        .collect();
    let applicable = trials.iter().filter(|t| !t.has_ignored_flag()).count();
    ensure!(
        applicable >= AT_LEAST,
        "only {applicable} cases apply to {}, at least {AT_LEAST} must",
        kit.name()
    );
    let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    let before = InUse::now();
    let conclusion = libtest_mimic::run(arguments, trials);
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    let mut clean = true;
    for (name, outcome) in [
        (
            "hygiene::nothing_is_left_in_the_store",
            store_is_empty(&kit),
        ),
        ("hygiene::nothing_is_left_in_the_process", before.settles()),
    ] {
        match outcome {
            Ok(()) => report.passed(name),
            Err(failure) => {
                complain(&Failure::new(format!("{name}: {failure}")));
                report.failed(name, failure.to_string());
                clean = false;
            }
        }
    }
    if let Some(directory) = std::env::var_os("LOCKTEST_REPORT") {
        report.write(&PathBuf::from(directory), kit.name())?;
    }
    ensure!(
        !whole || report.ran() >= AT_LEAST,
        "only {} cases ran, at least {AT_LEAST} must",
        report.ran()
    );
    Ok(if clean {
        conclusion.exit_code()
    } else {
        ExitCode::FAILURE
    })
}

fn trial(
    case: Case,
    kit: &Arc<dyn Kit>,
    capabilities: &Capabilities,
    report: &Arc<Report>,
    everybody: &Arc<RwLock<()>>,
) -> Trial {
    let name = case.name.clone();
    if let Some(reason) = case.not_applicable(capabilities, &**kit) {
        report.not_applicable(&name, reason.clone());
        let kind = format!("not applicable: {reason}");
        return Trial::test(name, move || Err(Failed::from(reason)))
            .with_kind(kind)
            .with_ignored_flag(true);
    }
    let (kit, report, everybody) = (Arc::clone(kit), Arc::clone(report), Arc::clone(everybody));
    Trial::test(name.clone(), move || {
        let run = || catch_unwind(AssertUnwindSafe(|| case.run(&kit, PATIENCE)));
        let outcome = if case.runs_alone() {
            let _alone = everybody.write().unwrap_or_else(PoisonError::into_inner);
            run()
        } else {
            let _with_others = everybody.read().unwrap_or_else(PoisonError::into_inner);
            run()
        };
        match outcome {
            Ok(Ok(())) => {
                report.passed(&name);
                Ok(())
            }
            Ok(Err(failure)) => {
                report.failed(&name, failure.to_string());
                Err(Failed::from(failure))
            }
            Err(panic) => {
                report.failed(&name, "panicked".to_owned());
                resume_unwind(panic)
            }
        }
    })
}

/// Nothing is stored but the residue that the backend declares.
fn store_is_empty(kit: &Arc<dyn Kit>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let limit = PATIENCE + kit.short_ttl() * 3;
    settles("an empty store", limit, || {
        let stored = runtime.block_on(kit.stored())?;
        Ok((!stored.is_empty()).then(|| stored.join(", ")))
    })
}

/// What this process has in use.
#[derive(Clone, Copy, Debug)]
struct InUse {
    threads: usize,
    descriptors: usize,
}

impl InUse {
    /// Zero where the system does not tell.
    fn now() -> Self {
        let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
        Self {
            threads: count("/proc/self/task"),
            descriptors: count("/proc/self/fd"),
        }
    }

    /// The process gets back to this, but for what it starts once.
    fn settles(self) -> Outcome {
        // Idle callback threads end after ten seconds.
        settles("threads and descriptors given back", PATIENCE * 3, || {
            let now = Self::now();
            let leaked = now.threads > self.threads + LAZY_THREADS
                || now.descriptors > self.descriptors + LAZY_DESCRIPTORS;
            Ok(leaked.then(|| format!("{self:?} became {now:?}")))
        })
    }
}

fn settles(
    what: &str,
    limit: Duration,
    mut left: impl FnMut() -> Outcome<Option<String>>,
) -> Outcome {
    let started = Instant::now();
    while let Some(left) = left()? {
        ensure!(
            started.elapsed() < limit,
            "no {what} within {limit:?}: {left}"
        );
        // sleep: the interval of a poll, which orders nothing
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn complain(failure: &Failure) {
    // There is nobody left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "{failure}");
}
