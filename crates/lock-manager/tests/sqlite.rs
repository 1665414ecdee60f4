//! The SQLite backend, chosen by configuration.
#![cfg(all(unix, feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

use std::os::unix::fs::PermissionsExt;

use lock_manager::{Config, ErrorKind, LockManager, Pool, SqliteConfig};

fn directory() -> tempfile::TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new()
        .permissions(private)
        .tempdir()
        .unwrap()
}

#[test]
fn a_prefork_pool_on_one_host_may_take_it() {
    let directory = directory();
    let file = directory.path().join("locks.toml");
    let path = directory.path().join("locks/l.db");
    let text = format!("pool = \"prefork\"\nhosts = 1\n[sqlite]\npath = {path:?}\nttl = \"10s\"\n");
    std::fs::write(&file, text).unwrap();
    let managers = [(); 2].map(|()| LockManager::from_file(&file).unwrap());
    let [first, second] = managers.each_ref().map(|locks| locks.lock("x").unwrap());
    assert_eq!(first.backend().capabilities().name, "sqlite");
    let guard = first.acquire().wait().unwrap();
    assert!(guard.remaining().is_some(), "`ttl` makes leases");
    assert!(second.try_acquire().wait().unwrap().is_none());
    guard.release_blocking().unwrap();
    assert!(second.try_acquire().wait().unwrap().is_some());
}

#[test]
fn a_file_that_cannot_be_used_is_told_with_its_setting() {
    let directory = directory();
    let path = directory.path().join("no database");
    std::fs::write(&path, "mine ".repeat(1000)).unwrap();
    let mut config = Config::default();
    config.pool = Some(Pool::Prefork);
    config.hosts = std::num::NonZeroU32::new(1);
    config.sqlite = Some(SqliteConfig::at(&path));
    let error = LockManager::new(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("sqlite.path"), "{error}");
    assert!(error.to_string().contains("no SQLite database"), "{error}");
}
