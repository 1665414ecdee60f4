//! A forked child starts with no locks, and its copies of guards release nothing.
#![cfg(unix)]

use std::sync::Arc;

use lock_core::{ErrorKind, Lock, LockKey, LossReason, OwnerToken};
use lock_threading::ThreadingBackend;

/// Runs `work` in a forked child and returns whether it held.
fn in_child(work: impl FnOnce() -> bool) -> bool {
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: the child only runs `work` and leaves with `_exit`; the C library makes its
    // allocator usable after a fork.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(i32::from(!work())),
            child => {
                assert!(child > 0, "fork failed");
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }
}

#[test]
fn locks_stay_with_the_parent() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    );
    let guard = lock.acquire().wait().unwrap();
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    let before = OwnerToken::mint();
    let child_is_right = in_child(|| {
        let forked = guard.loss() == Some(LossReason::Forked) && !guard.is_held();
        let closed = matches!(
            waiting.try_take(),
            Some(Err(error)) if error.kind() == ErrorKind::Closed
        );
        drop(guard);
        drop(waiting);
        // The child's own table is empty and works, and its attempts have a nonce of their own.
        let own = lock.acquire().wait().unwrap();
        let renewed = OwnerToken::mint().process() != before.process();
        let excludes = lock.try_acquire().wait().unwrap().is_none();
        drop(own);
        let times_out = lock
            .try_acquire_for(std::time::Duration::ZERO)
            .wait()
            .unwrap()
            .is_some();
        forked && closed && renewed && excludes && times_out
    });
    assert!(child_is_right);
}

#[test]
fn the_parent_keeps_its_lock_when_a_child_exits() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    );
    let guard = lock.acquire().wait().unwrap();
    assert!(in_child(|| true));
    assert!(guard.is_held());
    assert!(lock.try_acquire().wait().unwrap().is_none());
    drop(guard);
    assert!(lock.try_acquire().wait().unwrap().is_some());
}
