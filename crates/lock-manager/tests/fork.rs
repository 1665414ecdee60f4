//! A forked child goes on with the manager of its parent: an empty registry, and nothing held.
#![cfg(unix)]

use std::time::Duration;

use lock_manager::{Config, LockManager};

/// Runs `work` in a forked child and returns the number of its first wrong answer, or 0.
fn wrong_in_child(work: impl FnOnce() -> Vec<bool>) -> i32 {
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: the child only runs `work` and leaves with `_exit`; the C library makes its
    // allocator usable after a fork.
    unsafe {
        match libc::fork() {
            0 => {
                let wrong = work().iter().position(|right| !right);
                libc::_exit(wrong.map_or(0, |at| at as i32 + 1))
            }
            child => {
                assert!(child > 0, "fork failed");
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                assert!(libc::WIFEXITED(status), "the child did not end by itself");
                libc::WEXITSTATUS(status)
            }
        }
    }
}

#[test]
fn the_child_holds_nothing_and_a_shutdown_there_knows_what_it_takes() {
    let manager = LockManager::new(Config::default()).unwrap();
    let lock = manager.create_lock("a", "threading").unwrap();
    let guard = lock.acquire().wait().unwrap();
    let wrong = wrong_in_child(|| {
        let starts_empty = manager.list_locks().is_empty();
        // A handle from before the fork, and one of the child.
        let own = lock.acquire().wait().unwrap();
        let is_listed = manager.list_locks().contains_key("a");
        let excludes = manager
            .lock("a")
            .unwrap()
            .try_acquire()
            .wait()
            .unwrap()
            .is_none();
        let report = manager.blocking().shutdown(Duration::ZERO);
        let is_told = report.still_held.len() == 1 && report.still_held[0].guards == 1;
        drop(own);
        let is_over = manager.blocking().shutdown(Duration::ZERO).is_clean();
        let is_the_parents = !guard.is_held();
        vec![
            starts_empty,
            is_the_parents,
            is_listed,
            excludes,
            is_told,
            is_over,
        ]
    });
    assert_eq!(wrong, 0, "the number of the first wrong answer");
    // The child's copies have changed nothing here.
    assert!(manager.remove_lock("a").is_err(), "still held");
    assert!(lock.try_acquire().wait().unwrap().is_none());
    assert!(manager.list_locks().contains_key("a"));
}
