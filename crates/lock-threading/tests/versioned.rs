//! Readers of a versioned value never block and never see half a change.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Lock, LockKey, Mode};
use lock_threading::{ThreadingBackend, Versioned};

fn lock() -> Lock {
    Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("workflow").unwrap(),
    )
}

#[test]
fn readers_see_whole_versions_while_writers_work() {
    let value = Arc::new(Versioned::new(lock(), (0_u64, 0_u64)));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (value, done) = (Arc::clone(&value), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let seen = value.snapshot();
                    assert_eq!(seen.0, seen.1, "half a change was visible");
                    assert!(seen.version() >= last, "versions went back");
                    last = seen.version();
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let value = Arc::clone(&value);
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let mut draft = value.draft_blocking().unwrap();
                    draft.0 += 1;
                    draft.1 += 1;
                    draft.commit().unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(
        *value.snapshot(),
        (1_000, 1_000),
        "a writer's change was lost"
    );
    assert_eq!(value.snapshot().version(), 1_000);
}

#[test]
fn a_dropped_or_panicking_draft_commits_nothing_and_frees_the_lock() {
    let value = Versioned::new(lock(), 1);
    *value.draft_blocking().unwrap() = 2;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut draft = value.draft_blocking().unwrap();
        *draft = 3;
        panic!("in the section");
    }));
    assert!(panicked.is_err());
    assert_eq!((*value.snapshot(), value.snapshot().version()), (1, 0));
    let draft = value.draft_blocking().unwrap();
    assert_eq!(*value.snapshot(), 1, "a reader is not blocked by a writer");
    assert_eq!(draft.commit().unwrap(), 1);
}

#[test]
fn a_lost_lock_cannot_commit() {
    let options = AcquireOptions::new().max_hold(Duration::from_millis(1));
    let value = Versioned::new(lock().with_options(options), 1);
    let mut late = value.draft_blocking().unwrap();
    *late = 2;
    assert!(
        late.guard()
            .lost()
            .wait_for(Duration::from_secs(10))
            .is_some()
    );
    assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(*value.snapshot(), 1);
}

#[test]
fn a_shared_lock_is_refused_for_writing() {
    let value = Versioned::new(
        lock().with_options(AcquireOptions::new().mode(Mode::Shared)),
        1,
    );
    assert_eq!(
        value.draft_blocking().unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
}
