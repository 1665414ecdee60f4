//! Clients, and waiting for what must happen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lock_core::{
    AcquireOptions, Error, InspectQuery, Keepalive, KeyReport, Lock, LockBackend, LockGuard,
    LockKey, Released, Result, block_on,
};
use lock_redis::{RedisBackend, RedisConfig};
use lock_testkit::services::redis::RedisServer;

/// How long what should happen soon may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A wait that is meant to be in vain.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(5);
/// The lease of tests that wait for its end.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);

/// One client, as a program has it.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Arc<dyn LockBackend>);

impl Client {
    pub(crate) fn new(config: RedisConfig) -> Self {
        let backend = RedisBackend::new(config).expect("the configuration is fine");
        Self(Arc::new(Keepalive::new(Arc::new(backend))))
    }

    pub(crate) fn at(url: impl Into<String>) -> Self {
        Self::new(RedisConfig::at(url))
    }

    /// One that gives up at the first failure instead of hoping for a minute.
    pub(crate) fn impatient(mut config: RedisConfig) -> Self {
        config.retry_times = 1;
        config.retry_delay = Duration::from_millis(20);
        Self::new(config)
    }

    pub(crate) fn lock(&self, name: &str) -> Lock {
        Lock::new(Arc::clone(&self.0), LockKey::new(name).unwrap())
    }

    /// The key can be acquired and released, within what a loaded machine takes.
    pub(crate) fn passes(&self, name: &str) {
        let guard = self.lock(name).acquire_with(&patient()).wait().unwrap();
        assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    }

    /// What the server knows of a key; an error while slots move or masters change.
    pub(crate) fn report(&self, name: &str) -> Result<KeyReport> {
        let key = LockKey::new(name)?;
        let page = block_on(self.0.inspect(InspectQuery::key(key.clone())))?;
        let report = page.keys.into_iter().next();
        Ok(report.unwrap_or_else(|| KeyReport::idle(key)))
    }

    pub(crate) fn is_idle(&self, name: &str) -> bool {
        self.report(name).is_ok_and(|report| report.is_idle())
    }

    /// Returns once the server has this many waiters of the key.
    pub(crate) fn until_queued(&self, name: &str, waiters: usize) {
        self.until(name, |report| report.waiters.len() == waiters);
    }

    /// Returns once nobody holds the key, waits for it, or owes it a cleanup.
    pub(crate) fn until_idle(&self, name: &str) {
        self.until(name, KeyReport::is_idle);
    }

    fn until(&self, name: &str, holds: impl Fn(&KeyReport) -> bool) {
        let started = Instant::now();
        loop {
            let report = self.report(name);
            if report.as_ref().is_ok_and(&holds) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "still {report:?}");
            // sleep: the interval of a poll, which orders nothing
            std::thread::sleep(POLL);
        }
    }
}

/// The server's configuration for a user of it.
pub(crate) fn with_password(server: &RedisServer, user: &str, password: &str) -> RedisConfig {
    let credentials = format!("://{user}:{password}@");
    RedisConfig::at(server.url().replace("://", &credentials))
}

pub(crate) fn works(config: RedisConfig) {
    Client::new(config).passes("a");
}

/// The error of an acquire; it shows no secret, neither to people nor to programmers.
pub(crate) fn refusal(config: RedisConfig) -> Error {
    let lock = Client::new(config).lock("a");
    let error = lock.acquire_with(&patient()).wait().unwrap_err();
    let shown = format!("{error} {error:?} {lock:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    error
}

impl Drop for Client {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            // A server that is gone cannot be told.
            let _ = block_on(self.0.close());
        }
    }
}

/// Waits without a limit of its own, on a thread.
pub(crate) fn in_background(lock: &Lock) -> JoinHandle<Result<LockGuard>> {
    let lock = lock.clone();
    std::thread::spawn(move || lock.acquire_with(&patient()).wait())
}

/// What an acquire that must succeed is given.
pub(crate) fn patient() -> AcquireOptions {
    AcquireOptions::new().wait_limit(PATIENCE)
}

pub(crate) fn leased() -> AcquireOptions {
    patient().ttl(LEASE)
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain waited until {what}");
        // sleep: the interval of a poll, which orders nothing
        std::thread::sleep(POLL);
    }
}

/// The fencing number of an exclusive guard.
pub(crate) fn fence(guard: &LockGuard) -> u64 {
    let token = guard.fencing_token().expect("an exclusive guard");
    token.number().get()
}
