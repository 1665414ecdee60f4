//! A store of workflows: one lock per workflow for its writer, snapshots for everybody else.
//!
//! ```text
//! cargo run -p lock-examples --example workflow_store
//! ```
//!
//! Each workflow is a `Versioned` value, made when it is first asked for. Readers never block and
//! never see half a change; writers of one workflow take turns, writers of two do not meet; a writer
//! that panics leaves nothing behind, neither half a version nor a lock.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dashmap::DashMap;
use lock_core::{Lock, LockBackend, LockKey, Result};
use lock_threading::{ThreadingBackend, Versioned};

/// Steps by name, and how many of them are done: two facts that must agree in every snapshot.
#[derive(Clone, Debug, Default)]
struct Workflow {
    steps: BTreeMap<String, StepState>,
    done: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    Running,
    Done,
}

impl Workflow {
    fn is_consistent(&self) -> bool {
        let done = self
            .steps
            .values()
            .filter(|state| **state == StepState::Done);
        done.count() == self.done
    }
}

/// Workflows by name. A name that nobody asked for costs nothing.
struct Store {
    backend: Arc<dyn LockBackend>,
    workflows: DashMap<String, Arc<Versioned<Workflow>>>,
}

impl Store {
    fn workflow(&self, name: &str) -> Result<Arc<Versioned<Workflow>>> {
        if let Some(known) = self.workflows.get(name) {
            return Ok(Arc::clone(&known));
        }
        let key = LockKey::new(format!("workflow/{name}"))?;
        let lock = Lock::new(Arc::clone(&self.backend), key);
        // Two threads may both come here; the map keeps the first one's value for both.
        let made = self
            .workflows
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Versioned::new(lock, Workflow::default())));
        Ok(Arc::clone(&made))
    }

    /// Runs one step to its end. Other writers of this workflow wait; readers do not.
    fn run_step(&self, workflow: &str, step: &str) -> Result<u64> {
        let workflow = self.workflow(workflow)?;
        let mut draft = workflow.draft_blocking()?;
        draft.steps.insert(step.to_owned(), StepState::Running);
        // The work of the step goes here. The draft is ours alone, so it may be inconsistent
        // meanwhile.
        draft.steps.insert(step.to_owned(), StepState::Done);
        draft.done += 1;
        draft.commit()
    }
}

const READERS: usize = 3;
const STEPS: u64 = 500;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let store = Arc::new(Store {
        backend: Arc::new(ThreadingBackend::new()),
        workflows: DashMap::new(),
    });
    readers_beside_a_writer(&store)?;
    a_panic_commits_nothing(&store)?;

    // The other workflow has versions and a lock of its own.
    assert_eq!(store.run_step("report", "collect")?, 1);
    assert_eq!(store.workflows.len(), 2);
    Ok(())
}

fn readers_beside_a_writer(store: &Store) -> Result<()> {
    let writing = AtomicBool::new(true);
    let reads = AtomicU64::new(0);
    let read = || -> Result<()> {
        let workflow = store.workflow("import")?;
        let mut latest = 0;
        while writing.load(Ordering::Acquire) {
            let snapshot = workflow.snapshot();
            assert!(snapshot.is_consistent(), "half a change: {:?}", *snapshot);
            assert!(snapshot.version() >= latest, "a version went back");
            latest = snapshot.version();
            reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let written = (0..STEPS).try_for_each(|step| {
            let version = store.run_step("import", &format!("part-{step}"))?;
            assert_eq!(version, step + 1);
            Ok(())
        });
        writing.store(false, Ordering::Release);
        for reader in readers {
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        written
    })?;
    println!(
        "{STEPS} versions committed beside {} reads, each of them consistent",
        reads.into_inner()
    );
    Ok(())
}

fn a_panic_commits_nothing(store: &Arc<Store>) -> std::result::Result<(), Box<dyn Error>> {
    let workflow = store.workflow("import")?;
    let before = workflow.snapshot();
    let writer = Arc::clone(&workflow);
    println!("now a writer panics half-way (its message follows):");
    let outcome = thread::spawn(move || -> Result<()> {
        let mut draft = writer.draft_blocking()?;
        draft.steps.insert("deploy".into(), StepState::Done);
        panic!("the step failed before it was counted");
    })
    .join();
    assert!(outcome.is_err());

    assert_eq!(workflow.snapshot().version(), before.version());
    assert!(!workflow.snapshot().steps.contains_key("deploy"));
    // The lock went with the panic, so the next writer does not wait.
    assert!(workflow.lock().try_acquire().wait()?.is_some());
    let version = store.run_step("import", "deploy")?;
    println!(
        "still version {}, and the next writer made version {version}",
        before.version()
    );
    Ok(())
}
