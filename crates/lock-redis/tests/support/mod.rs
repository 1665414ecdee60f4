//! Clients of servers that are started for a test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use lock_core::{AcquireOptions, Error, Keepalive, Lock, LockBackend, LockGuard, LockKey};
use lock_redis::{RedisBackend, RedisConfig};

/// Longer than anything that should happen takes, also on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

pub(crate) fn backend(config: RedisConfig) -> Arc<dyn LockBackend> {
    Arc::new(Keepalive::new(Arc::new(RedisBackend::new(config).unwrap())))
}

pub(crate) fn lock(config: RedisConfig, name: &str) -> Lock {
    Lock::new(backend(config), LockKey::new(name).unwrap())
}

/// Acquires and gives back, within a bound that is generous.
pub(crate) fn works(config: RedisConfig) {
    let lock = lock(config, "a");
    let guard = acquire(&lock).unwrap();
    assert!(guard.is_held());
    guard.release_blocking().unwrap();
}

pub(crate) fn acquire(lock: &Lock) -> Result<LockGuard, Error> {
    lock.acquire_with(&AcquireOptions::new().wait_limit(SOON))
        .wait()
}

/// The error of an acquire; it shows no secret, neither to people nor to programmers.
pub(crate) fn refusal(config: RedisConfig) -> Error {
    let lock = lock(config, "a");
    let error = acquire(&lock).unwrap_err();
    let shown = format!("{error} {error:?} {lock:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    error
}
