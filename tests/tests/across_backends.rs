//! Memory and files together: sets of locks, deadlocks, counts, and one program on either.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use lock_core::wrap::{Counters, Deadlock, Observed, WaitGraph};
use lock_core::{
    AcquireOptions, ErrorKind, Lock, LockBackend, LockGuard, LockKey, OwnerId, Result, acquire_all,
    block_on,
};
use lock_file::{FileBackend, FileConfig};
use lock_manager::{Config, LockManager};
use lock_threading::ThreadingBackend;

fn memory() -> Arc<dyn LockBackend> {
    Arc::new(ThreadingBackend::new())
}

fn files(directory: &Path) -> Arc<dyn LockBackend> {
    let config = FileConfig::in_directory(directory.join("locks"));
    Arc::new(FileBackend::open(config).unwrap())
}

fn lock(backend: &Arc<dyn LockBackend>, name: &str) -> Lock {
    Lock::new(Arc::clone(backend), LockKey::new(name).unwrap())
}

/// Long enough to tell a deadlock from a busy machine.
fn patient() -> AcquireOptions {
    AcquireOptions::new().wait_limit(Duration::from_secs(60))
}

#[test]
fn sets_over_both_backends_never_deadlock() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    // One name, so that the order cannot rest on names alone.
    let locks = [
        lock(&memory(), "page"),
        lock(&files(directory.path()), "page"),
    ];
    let (sum, start) = (AtomicU64::new(0), Barrier::new(THREADS as usize));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let mut locks = locks.clone();
            if number % 2 == 0 {
                locks.reverse();
            }
            let (sum, start) = (&sum, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..ROUNDS {
                    let set = block_on(acquire_all(&locks, &patient())).unwrap();
                    assert_eq!(set.guards().len(), 2);
                    // Not one step: a second holder of the set would lose an increment.
                    let read = sum.load(Ordering::Relaxed);
                    thread::yield_now();
                    sum.store(read + 1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), THREADS * ROUNDS);
}

#[test]
fn a_cycle_through_both_backends_fails_for_one_of_the_two() {
    let directory = tempfile::tempdir().unwrap();
    let graph = WaitGraph::new();
    let watched =
        |backend| -> Arc<dyn LockBackend> { Arc::new(Deadlock::sharing(backend, graph.clone())) };
    let (memory, files) = (watched(memory()), watched(files(directory.path())));
    let (cache, table) = (lock(&memory, "cache"), lock(&files, "table"));
    let both_hold = Barrier::new(2);
    let cross = |first: Lock, second: Lock| -> Result<LockGuard> {
        let job = patient().owner(OwnerId::new());
        let held = first.acquire_with(&job).wait()?;
        both_hold.wait();
        let outcome = second.acquire_with(&job).wait();
        drop(held);
        outcome
    };
    let outcomes = thread::scope(|scope| {
        let one = scope.spawn(|| cross(cache.clone(), table.clone()));
        let other = scope.spawn(|| cross(table.clone(), cache.clone()));
        [one.join().unwrap(), other.join().unwrap()]
    });
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|one| one.as_ref().err())
        .collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    assert_eq!(refused[0].kind(), ErrorKind::Deadlock);
    let mut keys: Vec<&str> = refused[0]
        .cycle()
        .iter()
        .map(|edge| edge.key.name())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, ["cache", "table"]);
    for key in keys {
        assert!(refused[0].to_string().contains(key), "{}", refused[0]);
    }
    drop(outcomes);
    assert_eq!((graph.waiting(), graph.held()), (0, 0));
}

#[test]
fn what_happens_to_file_locks_is_counted_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let counters = Arc::new(Counters::new());
    let observed = Observed::new(files(directory.path()), counters.clone());
    let backend: Arc<dyn LockBackend> = Arc::new(observed);
    let key = lock(&backend, "report");

    let held = key.acquire().wait().unwrap();
    assert!(key.try_acquire().wait().unwrap().is_none());
    let short = Duration::from_millis(10);
    assert!(key.try_acquire_for(short).wait().unwrap().is_none());
    let now = counters.snapshot();
    assert_eq!((now.holders, now.waiters), (1, 0));

    thread::scope(|scope| {
        let waiter = scope.spawn(|| key.acquire().wait().unwrap());
        let started = Instant::now();
        while counters.snapshot().waiters == 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "nobody waits");
            thread::yield_now();
        }
        held.release_blocking().unwrap();
        drop(waiter.join().unwrap());
    });

    let counted = counters.snapshot();
    assert_eq!((counted.holders, counted.waiters), (0, 0));
    assert_eq!(counted.attempts, 4);
    assert_eq!(counted.acquired, 2);
    assert_eq!(counted.contended, 1);
    assert_eq!(counted.abandoned, 1, "the wait limit that passed");
    assert_eq!(counted.released, 2);
    assert_eq!((counted.failed, counted.lost), (0, 0));
}

/// A program: it names what it protects, and nothing else.
fn is_alone_at_work(locks: &LockManager) -> bool {
    let guard = locks.lock("orders/import").unwrap().try_acquire();
    guard.wait().unwrap().is_some()
}

#[test]
fn the_pool_decides_who_excludes_the_same_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks.toml");
    let shared = directory.path().join("locks");
    // What another process of the same deployment would open.
    let other = files(directory.path());
    for (pool, backend, is_excluded) in [("threads", "threading", false), ("prefork", "file", true)]
    {
        let text = format!("pool = \"{pool}\"\nhosts = 1\n[file]\ndirectory = {shared:?}\n");
        std::fs::write(&path, text).unwrap();
        let locks = LockManager::new(Config::from_file(&path).unwrap()).unwrap();
        assert_eq!(locks.default_backend(), backend);
        assert!(is_alone_at_work(&locks), "{pool}");
        let held = lock(&other, "orders/import").acquire().wait().unwrap();
        assert_eq!(!is_alone_at_work(&locks), is_excluded, "{pool}");
        held.release_blocking().unwrap();
        assert!(is_alone_at_work(&locks), "{pool}");
    }
}
