//! The acquire family, sets, inspection and the vocabulary of earlier designs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use lock_manager::{AcquireOptions, Config, ErrorKind, LockManager, Mode};

fn manager(namespace: &str) -> LockManager {
    let mut config = Config::default();
    config.namespace = namespace.to_owned();
    LockManager::new(config).unwrap()
}

#[tokio::test]
async fn a_lock_context_waits_as_long_as_it_is_told() {
    let manager = manager("context");
    let guard = manager.lock_context("a", Duration::ZERO).await.unwrap();
    let soon = Duration::from_millis(10);
    for limit in [Duration::ZERO, soon] {
        let error = manager.lock_context("a", limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.key().unwrap().name(), "a");
    }
    let waiting = tokio::spawn(manager.lock_context("a", None));
    drop(guard);
    drop(waiting.await.unwrap().unwrap());
    let error = manager.lock_context("", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn none_waits_without_a_limit_also_against_a_default() {
    let mut config = Config::default();
    config.namespace = "no-limit".into();
    config.acquire.wait_limit = Some(Duration::ZERO);
    let manager = LockManager::new(config).unwrap();
    let guard = manager.lock("a").unwrap().acquire().await.unwrap();
    let by_default = manager.lock("a").unwrap().acquire().await.unwrap_err();
    assert_eq!(by_default.kind(), ErrorKind::Timeout);
    let waiting = tokio::spawn(manager.lock_context("a", None));
    drop(guard);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_set_is_all_or_nothing() {
    let manager = manager("sets");
    let set = manager.acquire_all(["b", "a", "b"]).await.unwrap();
    let names: Vec<_> = set
        .guards()
        .iter()
        .map(|guard| guard.key().name())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let once = AcquireOptions::new().wait_limit(Duration::ZERO);
    let error = manager
        .acquire_all_with(["0", "a"], &once)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!manager.is_locked("0").await.unwrap(), "rolled back");
    assert!(manager.is_locked("b").await.unwrap());
    set.release().await.unwrap();
    assert!(manager.list_locks().is_empty());
}

#[test]
fn threads_need_no_runtime() {
    let manager = manager("blocking");
    let guard = manager.blocking().lock_context("a", None).unwrap();
    assert!(manager.blocking().is_locked("a").unwrap());
    let contended = manager.blocking().lock_context("a", Duration::ZERO);
    assert_eq!(contended.unwrap_err().kind(), ErrorKind::Timeout);
    drop(guard);
    let set = manager.blocking().acquire_all(["a", "b"]).unwrap();
    assert_eq!(set.guards().len(), 2);
}

#[tokio::test]
async fn inspect_tells_who_holds_and_who_waits() {
    let manager = manager("inspect");
    let lock = manager.lock("a").unwrap();
    let options = AcquireOptions::new().mode(Mode::Shared).label("a report");
    let guard = lock.acquire_with(&options).await.unwrap();
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    let report = manager.inspect("a").await.unwrap();
    assert_eq!(report.holders.len(), 1);
    assert_eq!(report.holders[0].label.as_deref(), Some("a report"));
    assert_eq!(report.holders[0].attempt, guard.attempt());
    assert_eq!(report.waiters.len(), 1);
    assert!(manager.inspect("b").await.unwrap().is_idle());
    let query = lock_core::InspectQuery::namespace("inspect");
    let backend = manager.backend(manager.default_backend()).unwrap();
    assert_eq!(backend.inspect(query).await.unwrap().keys.len(), 1);
}

#[tokio::test]
async fn break_lock_is_the_backends_to_do_or_refuse() {
    let manager = manager("break");
    let guard = manager.lock("a").unwrap().acquire().await.unwrap();
    let outcome = manager.break_lock("a", None).await;
    let backend = manager.backend("threading").unwrap();
    if backend.capabilities().break_lock {
        assert_eq!(outcome.unwrap(), 1);
        assert!(!guard.is_held());
    } else {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(guard.is_held());
    }
}

/// The default manager is one for the process, so one test has all of it.
#[tokio::test]
async fn the_default_manager_is_set_once_before_its_first_use() {
    let mine = manager("default-manager");
    lock_manager::set_default_manager(mine.clone()).unwrap();
    let refused = lock_manager::set_default_manager(manager("late")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    let default = lock_manager::get_default_lock_manager();
    assert!(std::ptr::eq(default, lock_manager::default_manager()));
    let lock = lock_manager::create_lock("a", "threading").unwrap();
    assert_eq!(lock.key().namespace(), "default-manager");
    assert_eq!(mine.list_locks().len(), 1);
    let guard = lock_manager::lock_context("a", Duration::ZERO)
        .await
        .unwrap();
    assert!(mine.remove_lock("a").is_err());
    drop(guard);
    assert!(mine.remove_lock("a").unwrap());
}
