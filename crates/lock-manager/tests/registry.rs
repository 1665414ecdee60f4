//! Names: one identity, never removed while held, and nothing left of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Barrier};
use std::thread;

use lock_manager::{Config, ErrorKind, Lock, LockManager};

fn manager(namespace: &str) -> LockManager {
    let mut config = Config::default();
    config.namespace = namespace.to_owned();
    LockManager::new(config).unwrap()
}

fn same(a: &Lock, b: &Lock) -> bool {
    Arc::ptr_eq(a.backend(), b.backend()) && a.key() == b.key()
}

#[test]
fn a_name_is_one_lock_while_anyone_has_it() {
    let manager = manager("one-lock");
    let clone = manager.clone();
    let lock = manager.lock("a").unwrap();
    assert!(same(&lock, &clone.lock("a").unwrap()));
    assert!(!same(&lock, &manager.lock("b").unwrap()));
    assert_eq!(lock.key().namespace(), "one-lock");
    assert_eq!(
        manager.list_locks().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "threading".to_owned())]
    );
    // A guard alone keeps the name in use.
    let guard = lock.acquire().wait().unwrap();
    drop(lock);
    assert_eq!(manager.list_locks().len(), 1);
    assert!(
        manager
            .lock("a")
            .unwrap()
            .try_acquire()
            .wait()
            .unwrap()
            .is_none()
    );
    drop(guard);
    assert!(manager.list_locks().is_empty());
}

#[test]
fn a_registered_name_stays_until_it_is_removed() {
    let manager = manager("registered");
    let key = drop_handle(manager.create_lock("a", "threading").unwrap());
    assert_eq!(
        manager.list_locks().get("a").map(String::as_str),
        Some("threading")
    );
    assert_eq!(key, "a");
    let again = manager.get_or_create_lock("a", "threading").unwrap();
    assert!(same(&again, &manager.lock("a").unwrap()));
    assert!(manager.remove_lock("a").unwrap());
    assert!(
        !manager.remove_lock("a").unwrap(),
        "there was none any more"
    );
    // The handle that is out stays the lock of the name.
    assert!(same(&again, &manager.lock("a").unwrap()));
    drop(again);
    assert!(manager.list_locks().is_empty());
    assert!(!manager.remove_lock("never-heard-of").unwrap());
}

fn drop_handle(lock: Lock) -> String {
    lock.key().name().to_owned()
}

#[test]
fn a_lock_is_not_removed_while_it_is_held_or_waited_for() {
    let manager = manager("not-removed");
    let lock = manager.create_lock("a", "threading").unwrap();
    let guard = lock.acquire().wait().unwrap();
    let refused = manager.remove_lock("a").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    assert!(refused.message().contains("held 1 times"), "{refused}");
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    let refused = manager.remove_lock("a").unwrap_err();
    assert!(
        refused.message().contains("waited for 1 times"),
        "{refused}"
    );
    drop(guard);
    assert!(
        manager.remove_lock("a").is_err(),
        "the waiter has been granted"
    );
    drop(waiting);
    assert!(manager.remove_lock("a").unwrap());
}

#[test]
fn every_way_to_end_an_attempt_is_noticed() {
    let manager = manager("attempts-end");
    let lock = manager.create_lock("a", "threading").unwrap();
    let assert_idle = |after: &str| {
        assert!(
            manager.remove_lock("a").is_ok(),
            "still in use after {after}"
        );
        manager.create_lock("a", "threading").unwrap();
    };
    lock.acquire().wait().unwrap().release_blocking().unwrap();
    assert_idle("a release");
    let guard = lock.acquire().wait().unwrap();
    assert!(lock.try_acquire().wait().unwrap().is_none());
    let soon = std::time::Duration::from_millis(5);
    assert!(lock.try_acquire_for(soon).wait().unwrap().is_none());
    let mut dropped = lock.acquire();
    assert!(dropped.try_take().is_none());
    drop(dropped);
    drop(guard);
    assert_idle("a contended try, a timeout and a cancelled wait");
    let detached = lock_core::block_on(lock.acquire().wait().unwrap().detach()).unwrap();
    let attached = lock_core::block_on(lock.attach(detached)).unwrap();
    assert!(
        manager.remove_lock("a").is_err(),
        "an attached lock is held"
    );
    drop(attached);
    assert_idle("detach, attach and drop");
    let panicked = thread::spawn(move || {
        let _guard = lock.acquire().wait().unwrap();
        panic!("inside the section");
    });
    assert!(panicked.join().is_err());
    assert_idle("a panic");
}

#[test]
fn a_name_has_one_backend() {
    let mut config = Config::default();
    config.backend = Some("threading".into());
    let manager = LockManager::builder()
        .config(config)
        .backend("other", Arc::new(lock_threading::ThreadingBackend::new()))
        .build()
        .unwrap();
    let lock = manager.lock("a").unwrap();
    let refused = manager.create_lock("a", "other").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    assert!(
        refused
            .message()
            .contains("already has backend `threading`"),
        "{refused}"
    );
    drop(lock);
    let lock = manager.create_lock("a", "other").unwrap();
    assert_eq!(
        manager.create_lock("a", "threading").unwrap_err().kind(),
        ErrorKind::InUse
    );
    assert!(
        same(&lock, &manager.lock("a").unwrap()),
        "in use comes before the routes"
    );
    drop(lock);
    assert!(manager.remove_lock("a").unwrap());
    manager.create_lock("a", "threading").unwrap();
}

/// Case 27: threads that create, use, remove and list one name at once.
#[test]
fn races_of_lock_remove_and_list_give_one_identity() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2_000;
    let manager = manager("races");
    let barrier = Barrier::new(THREADS);
    let inside = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (manager, barrier, inside) = (&manager, &barrier, &inside);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    let name = format!("n{}", round % 3);
                    let lock = match (thread + round) % 2 {
                        0 => manager.lock(&name).unwrap(),
                        _ => manager.create_lock(&name, "threading").unwrap(),
                    };
                    let guard = lock.acquire().wait().unwrap();
                    // Registered or not, the name is this lock as long as the guard is out.
                    assert!(same(&lock, &manager.lock(&name).unwrap()));
                    match manager.remove_lock(&name) {
                        Ok(removed) => assert!(!removed, "removed while held"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::InUse),
                    }
                    if name == "n0" {
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    assert!(manager.list_locks().contains_key(&name));
                    drop(guard);
                    drop(lock);
                    let _ = manager.remove_lock(&name);
                }
            });
        }
    });
    for name in ["n0", "n1", "n2"] {
        manager.remove_lock(name).unwrap();
    }
    assert!(manager.list_locks().is_empty());
}
