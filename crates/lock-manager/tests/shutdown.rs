//! The end of a manager: nothing is granted any more, and what is held is told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Config, ErrorKind, LockManager};
use lock_threading::ThreadingBackend;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

fn manager(namespace: &str) -> LockManager {
    let mut config = Config::default();
    config.namespace = namespace.to_owned();
    LockManager::new(config).unwrap()
}

#[test]
fn an_idle_manager_closes_at_once_and_grants_nothing_more() {
    let manager = manager("idle");
    let lock = manager.lock("a").unwrap();
    let report = manager.blocking().shutdown(LONG);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(lock.acquire().wait().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        lock.try_acquire().wait().unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(manager.lock("b").unwrap_err().kind(), ErrorKind::Closed);
    let context = manager.lock_context("b", None);
    assert_eq!(context.wait().unwrap_err().kind(), ErrorKind::Closed);
    assert!(
        !manager.blocking().is_locked("a").unwrap(),
        "looking is still allowed"
    );
    assert!(manager.blocking().shutdown(LONG).is_clean(), "again");
}

#[test]
fn waiters_are_refused_and_a_released_guard_ends_the_wait() {
    let manager = manager("waiters");
    let lock = manager.lock("a").unwrap();
    let guard = lock.acquire().wait().unwrap();
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| manager.blocking().shutdown(LONG));
        // The waiter hears of it while the guard is still out.
        assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::Closed);
        assert!(guard.is_held());
        assert!(!shutdown.is_finished());
        let before = Instant::now();
        drop(guard);
        assert!(shutdown.join().unwrap().is_clean());
        assert!(before.elapsed() < LONG / 2);
    });
}

#[test]
fn what_is_held_at_the_deadline_is_told_and_stays_held() {
    let manager = manager("held");
    let guard = manager.lock("a").unwrap().acquire().wait().unwrap();
    let forgotten = manager.lock("b").unwrap().acquire();
    let report = manager.blocking().shutdown(SHORT);
    assert_eq!(report.still_held.len(), 1, "{report:?}");
    assert_eq!(report.still_held[0].key.name(), "a");
    assert_eq!(report.still_held[0].backend, "threading");
    assert_eq!(report.still_held[0].guards, 1);
    assert!(guard.is_held());
    drop((guard, forgotten));
    assert!(manager.blocking().shutdown(SHORT).is_clean());
}

#[test]
fn other_managers_of_the_process_go_on() {
    let (ending, staying) = (manager("shared"), manager("shared"));
    let guard = ending.lock("a").unwrap().acquire().wait().unwrap();
    let lock = staying.lock("a").unwrap();
    assert!(
        lock.try_acquire().wait().unwrap().is_none(),
        "they exclude each other"
    );
    drop(guard);
    assert!(ending.blocking().shutdown(LONG).is_clean());
    assert!(lock.try_acquire().wait().unwrap().is_some());
}

#[test]
fn a_plugged_in_backend_is_closed() {
    let backend = ThreadingBackend::new();
    let manager = LockManager::builder()
        .backend("mine", Arc::new(backend.clone()))
        .build()
        .unwrap();
    assert_eq!(manager.default_backend(), "mine");
    assert!(manager.blocking().shutdown(LONG).is_clean());
    let key = lock_manager::LockKey::new("a").unwrap();
    let direct = lock_manager::Lock::new(Arc::new(backend), key);
    assert_eq!(
        direct.acquire().wait().unwrap_err().kind(),
        ErrorKind::Closed
    );
}

/// Granted or refused, and if granted then waited for: however a shutdown falls among acquires.
#[test]
fn no_grant_slips_through_a_shutdown() {
    for round in 0..200 {
        let manager = manager(&format!("race-{round}"));
        let locks: Vec<_> = (0..4)
            .map(|i| manager.lock(format!("{}", i % 2)).unwrap())
            .collect();
        let barrier = std::sync::Barrier::new(locks.len() + 1);
        thread::scope(|scope| {
            for lock in &locks {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    loop {
                        match lock.acquire().wait() {
                            Ok(guard) => drop(guard),
                            Err(error) => break assert_eq!(error.kind(), ErrorKind::Closed),
                        }
                    }
                });
            }
            barrier.wait();
            let report = manager.blocking().shutdown(LONG);
            assert!(report.is_clean(), "{report:?}");
            // Nothing is held from here on.
            for lock in &locks {
                let report = lock_core::block_on(lock.is_locked()).unwrap();
                assert!(!report, "granted after the shutdown");
            }
        });
    }
}
