//! Configurations that choose Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use lock_manager::{ErrorKind, LockManager, Scope};
use lock_testkit::services::redis::RedisServer;

fn from_text(text: &str) -> lock_manager::Result<LockManager> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks.toml");
    std::fs::write(&path, text).unwrap();
    LockManager::from_file(path)
}

#[test]
fn prefork_on_several_hosts_finds_redis() {
    let server = RedisServer::start().unwrap();
    let text = format!(
        "pool = \"prefork\"\nhosts = 2\nnamespace = \"shop\"\n[file]\n[redis]\nurl = \"{}\"\n\
         expire_time = \"10s\"\nretry_times = 3\nretry_delay = \"100ms\"\n",
        server.url()
    );
    let (here, there) = (from_text(&text).unwrap(), from_text(&text).unwrap());
    assert_eq!(here.default_backend(), "redis");
    let lock = here.lock("nightly").unwrap();
    assert_eq!(lock.backend().capabilities().scope, Scope::Network);
    let guard = lock.acquire().wait().unwrap();
    let left = guard.remaining().unwrap();
    assert!(left <= Duration::from_secs(10), "{left:?}");
    let other = there.lock("nightly").unwrap();
    assert!(other.try_acquire().wait().unwrap().is_none());
    guard.release_blocking().unwrap();
    drop(other.acquire().wait().unwrap());
}

#[test]
fn a_setting_of_redis_that_is_wrong_is_told_where_it_stands() {
    for (setting, told) in [
        ("urll = \"redis://h\"", "urll"),
        ("url = \"http://u:hunter2@h\"", "no URL of a Redis server"),
        ("url = \"redis://h\"\nlease = \"1ms\"", "lease"),
        ("url = \"redis://h\"\nprefix = \"{x}\"", "prefix"),
    ] {
        let text = format!("backend = \"redis\"\n[redis]\n{setting}");
        let error = from_text(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("locks.toml") && shown.contains(told),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
