//! A forked child starts with no locks, and its copies of guards release nothing.
#![cfg(unix)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Lock, LockKey, LossReason, OwnerToken, runtime};
use lock_testkit::fork::Forked;
use lock_threading::ThreadingBackend;

#[test]
fn locks_stay_with_the_parent() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    );
    let guard = lock.acquire().wait().unwrap();
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    // Of a free lock, and not asked for before the fork.
    let mut unasked = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("free").unwrap(),
    )
    .acquire();
    let before = OwnerToken::mint();
    let child = Forked::start(|| {
        assert_eq!(guard.loss(), Some(LossReason::Forked));
        assert!(!guard.is_held());
        let closed = waiting.try_take().unwrap().unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Closed);
        let closed = unasked.try_take().unwrap().unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Closed);
        drop(guard);
        drop(waiting);
        // The child's own table is empty and works, and its attempts have a nonce of their own.
        let own = lock.acquire().wait().unwrap();
        assert_ne!(OwnerToken::mint().process(), before.process());
        assert!(lock.try_acquire().wait().unwrap().is_none());
        drop(own);
        let again = lock.try_acquire_for(Duration::ZERO).wait().unwrap();
        assert!(again.is_some());
    });
    child.unwrap().join().unwrap();
}

#[test]
fn the_parent_keeps_its_lock_when_a_child_exits() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    );
    let guard = lock.acquire().wait().unwrap();
    Forked::start(|| ()).unwrap().join().unwrap();
    assert!(guard.is_held());
    assert!(lock.try_acquire().wait().unwrap().is_none());
    drop(guard);
    assert!(lock.try_acquire().wait().unwrap().is_some());
}

/// Keeps the locks of the I/O thread's runtime busy while it lives, so that a fork may copy them
/// while they are held.
struct BusyRuntime {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyRuntime {
    fn start() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let busy = || {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let task = runtime::handle().spawn(async {});
                    while !task.is_finished() {
                        // sleep: nobody waits for it; it is made and dropped to use its lock
                        let mut timer = Box::pin(runtime::sleep(Duration::from_secs(60)));
                        let _ = timer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    }
                }
            })
        };
        let threads = vec![busy(), busy()];
        Self { done, threads }
    }
}

impl Drop for BusyRuntime {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_child_drops_what_has_timers_without_waiting_for_the_parents_threads() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    );
    let bounded = AcquireOptions::new().max_hold(Duration::from_secs(3600));
    let limited = AcquireOptions::new().wait_limit(Duration::from_secs(3600));
    let _busy = BusyRuntime::start();
    for _ in 0..100 {
        let guard = lock.acquire_with(&bounded).wait().unwrap();
        let lost = guard.lost();
        let mut waiting = lock.acquire_with(&limited);
        assert!(waiting.try_take().is_none());
        let mut mine = Some((waiting, guard, lost));
        let child = Forked::start(|| {
            let (_, _, lost) = mine.take().unwrap();
            assert_eq!(lost.reason(), Some(LossReason::Forked));
        });
        child.unwrap().join().unwrap();
        drop(mine.take());
    }
}
