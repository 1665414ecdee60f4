//! The middle columns of `docs/FROM-SEEDS.md`: what is written there exists and does what is said.
#![cfg(unix)]

use std::time::Duration;

use lock_core::block_on;
use lock_manager::{
    Config, ErrorKind, FileConfig, LockKey, LockManager, create_lock, default_manager,
    get_default_lock_manager, lock_context,
};
use lock_threading::Versioned;

#[test]
fn a_manager_creates_lists_and_removes() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.file = Some(FileConfig::in_directory(directory.path().join("locks")));
    let manager = LockManager::new(config).unwrap();
    let lock = manager
        .get_or_create_lock("database_ops", "threading")
        .unwrap();
    assert_eq!(lock.key().name(), "database_ops");
    assert_eq!(manager.list_locks()["database_ops"], "threading");
    let conflict = manager.get_or_create_lock("database_ops", "file");
    assert_eq!(conflict.unwrap_err().kind(), ErrorKind::InUse);

    let guard = lock
        .try_acquire_for(Duration::ZERO)
        .wait()
        .unwrap()
        .unwrap();
    assert!(block_on(lock.is_locked()).unwrap());
    assert!(
        lock.try_acquire_for(Duration::ZERO)
            .wait()
            .unwrap()
            .is_none()
    );
    let refused = manager.remove_lock("database_ops").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    guard.release_blocking().unwrap();
    assert!(manager.remove_lock("database_ops").unwrap());
    assert!(!manager.remove_lock("database_ops").unwrap());
}

#[test]
fn the_default_manager_is_one_for_the_process() {
    assert!(std::ptr::eq(get_default_lock_manager(), default_manager()));
    let lock = create_lock("from-seeds", "threading").unwrap();
    let guard = lock_context("from-seeds", Duration::from_secs(5))
        .wait()
        .unwrap();
    let late = lock_context("from-seeds", Duration::from_millis(1)).wait();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    drop(guard);
    drop(lock_context("from-seeds", None).wait().unwrap());
    drop(lock);
}

#[test]
fn a_backend_without_its_settings_is_told_apart_from_a_typo() {
    let manager = LockManager::new(Config::default()).unwrap();
    let redis = manager.create_lock("x", "redis").unwrap_err();
    assert_eq!(redis.kind(), ErrorKind::InvalidConfig);
    assert!(redis.to_string().contains("url"), "{redis}");
    let typo = manager.create_lock("x", "rediss").unwrap_err();
    assert_eq!(typo.kind(), ErrorKind::InvalidConfig);
    assert!(typo.to_string().contains("`redis`"), "{typo}");
}

#[test]
fn a_lifetime_does_no_harm_where_there_are_no_leases() {
    let mut config = Config::default();
    config.acquire.ttl = Some(Duration::from_secs(120));
    let manager = LockManager::new(config).unwrap();
    drop(manager.lock("x").unwrap().acquire().wait().unwrap());
}

#[test]
fn a_workflow_has_one_lock_and_readers_that_never_wait() {
    let manager = LockManager::new(Config::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flow.aim");
    std::fs::write(&path, "").unwrap();
    let roundabout = directory.path().join(".").join("flow.aim");
    let key = |path| LockKey::path(path).unwrap();
    assert_eq!(key(&path), key(&roundabout));

    let workflow = Versioned::new(manager.lock_key(&key(&path)).unwrap(), 1);
    let mut draft = workflow.draft_blocking().unwrap();
    *draft = 2;
    assert_eq!(*workflow.snapshot(), 1);
    draft.commit().unwrap();
    assert_eq!(*workflow.snapshot(), 2);
}
