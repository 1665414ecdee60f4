//! A forked child goes on with the manager of its parent: an empty registry, and nothing held.
#![cfg(unix)]

use std::time::Duration;

use lock_manager::{Config, LockManager};
use lock_testkit::fork::Forked;

#[test]
fn the_child_holds_nothing_and_a_shutdown_there_knows_what_it_takes() {
    let manager = LockManager::new(Config::default()).unwrap();
    let lock = manager.create_lock("a", "threading").unwrap();
    let guard = lock.acquire().wait().unwrap();
    let child = Forked::start(|| {
        assert!(manager.list_locks().is_empty());
        assert!(!guard.is_held(), "it is the parent's");
        // A handle from before the fork, and one of the child.
        let own = lock.acquire().wait().unwrap();
        assert!(manager.list_locks().contains_key("a"));
        let other = manager.lock("a").unwrap().try_acquire().wait().unwrap();
        assert!(other.is_none());
        let report = manager.blocking().shutdown(Duration::ZERO);
        assert_eq!(report.still_held.len(), 1);
        assert_eq!(report.still_held[0].guards, 1);
        drop(own);
        assert!(manager.blocking().shutdown(Duration::ZERO).is_clean());
    });
    child.unwrap().join().unwrap();
    // The child's copies have changed nothing here.
    assert!(manager.remove_lock("a").is_err(), "still held");
    assert!(lock.try_acquire().wait().unwrap().is_none());
    assert!(manager.list_locks().contains_key("a"));
}
