//! Planted cycles among the locks of one manager, over memory and files, in every mode.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use lock_manager::{
    Acquire, AcquireOptions, Config, ErrorKind, LockGuard, LockManager, Mode, OwnerId, Result,
};

/// Names that start with `file` are files, all others in memory.
fn manager(directory: &std::path::Path, settings: &str) -> LockManager {
    let path = directory.join("locks.toml");
    let shared = directory.join("locks");
    let routes = "[[routes]]\npattern = \"file*\"\nbackend = \"file\"\n";
    let text = format!(
        "backend = \"threading\"\n{routes}[file]\ndirectory = {shared:?}\n[deadlock]\n{settings}\n"
    );
    std::fs::write(&path, text).unwrap();
    LockManager::new(Config::from_file(&path).unwrap()).unwrap()
}

/// A pending acquire may wait for a thread that looks at the file.
fn poll(acquire: &mut Acquire) -> Poll<Result<LockGuard>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn every_ring_over_both_backends_is_refused_in_every_mode() {
    let directory = tempfile::tempdir().unwrap();
    let locks = manager(directory.path(), "detect = true");
    let modes = [
        ("x", Mode::Exclusive, Mode::Exclusive),
        ("s", Mode::Shared, Mode::Exclusive),
        (
            "p",
            Mode::permits(2, 2).unwrap(),
            Mode::permits(1, 2).unwrap(),
        ),
    ];
    for (kind, held, wanted) in modes {
        for length in [1, 2, 3, 8] {
            let owners: Vec<OwnerId> = (0..length).map(|_| OwnerId::new()).collect();
            // Every second key is a file.
            let name = |at: usize| {
                let at = at % length;
                let backend = if at.is_multiple_of(2) {
                    "file"
                } else {
                    "memory"
                };
                format!("{backend}/{kind}/{length}/{at}")
            };
            let ask = |owner: usize, at: usize, mode: Mode| {
                let options = AcquireOptions::new().owner(owners[owner]).mode(mode);
                locks.lock(name(at)).unwrap().acquire_with(&options)
            };
            let guards: Vec<_> = (0..length)
                .map(|at| ask(at, at, held).wait().unwrap())
                .collect();
            let mut waits = Vec::new();
            for owner in 1..length {
                let mut wait = ask(owner, owner + 1, wanted);
                assert!(poll(&mut wait).is_pending());
                waits.push(wait);
            }
            let refused = ask(0, 1, wanted).wait().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Deadlock, "{refused}");
            assert_eq!(refused.cycle().len(), length);
            for owner in &owners {
                let edge = refused.cycle().iter().find(|edge| edge.owner == *owner);
                let edge = edge.unwrap();
                assert_eq!(edge.mode, wanted);
                assert!(
                    edge.site
                        .as_deref()
                        .unwrap()
                        .contains("deadlocks_across_backends.rs")
                );
            }
            drop((waits, guards));
        }
    }
}

/// Options of the handle itself take the shortest way to a free lock.
#[test]
fn a_hold_by_a_handle_with_options_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let locks = manager(directory.path(), "detect = true");
    let owners = [OwnerId::new(), OwnerId::new()];
    let ask = |owner: usize, name: &str| {
        let options = AcquireOptions::new().owner(owners[owner]);
        let lock = locks.lock(name).unwrap().with_options(options);
        lock.acquire()
    };
    let hold = |owner, name| ask(owner, name).wait().unwrap();
    let guards = [hold(0, "memory/a"), hold(1, "memory/b")];
    let mut waits = ask(1, "memory/a");
    assert!(poll(&mut waits).is_pending());
    let mut closes = ask(0, "memory/b");
    let Poll::Ready(Err(refused)) = poll(&mut closes) else {
        panic!("the acquire that closes a cycle was not refused");
    };
    assert_eq!(refused.kind(), ErrorKind::Deadlock, "{refused}");
    drop((waits, guards));
}

#[test]
fn a_manager_counts_reentry_and_reports_order_if_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "detect = true\nreentrant = true\nreport_order = true";
    let locks = manager(directory.path(), settings);
    let job = AcquireOptions::new().owner(OwnerId::new()).reentrant();
    for name in ["file/a", "memory/a"] {
        let outer = locks.lock(name).unwrap().acquire_with(&job).wait().unwrap();
        // By another handle of the name.
        let inner = locks.lock(name).unwrap().acquire_with(&job).wait().unwrap();
        drop(outer);
        assert!(locks.blocking().is_locked(name).unwrap());
        drop(inner);
        assert!(!locks.blocking().is_locked(name).unwrap());
    }
    // Without the setting nobody counts, and that is told.
    let plain = manager(directory.path(), "detect = true");
    let lock = plain.lock("memory/a").unwrap();
    let refused = lock.acquire_with(&job).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(
        refused.to_string().contains("deadlock.reentrant"),
        "{refused}"
    );
}
