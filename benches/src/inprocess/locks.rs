//! The contestants: floors without keys, peers with keys, and ours.

use std::sync::Arc;

use dashmap::DashMap;
use lock_threading::KeyedLocks;

use crate::keys::Key;

/// Something that runs a section under the lock of a key.
pub(crate) trait Locks: Send + Sync + 'static {
    fn with(&self, key: &Key, section: impl FnOnce());
}

/// The same for tasks.
pub(crate) trait AsyncLocks: Send + Sync + 'static {
    fn with(&self, key: &Key, section: impl FnOnce() + Send) -> impl Future<Output = ()> + Send;
}

pub(crate) type Ours = KeyedLocks<Key>;
pub(crate) type LockMap = lockmap::LockMap<Key, ()>;
pub(crate) type Lockable = lockable::LockPool<Key>;

impl Locks for Ours {
    #[inline]
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let guard = self.acquire(key).wait();
        // The token is part of what is measured.
        std::hint::black_box(guard.fencing_token().map(|token| token.number().get()));
        section();
    }
}

impl AsyncLocks for Ours {
    #[inline]
    async fn with(&self, key: &Key, section: impl FnOnce() + Send) {
        let guard = self.acquire(key).await;
        std::hint::black_box(guard.fencing_token().map(|token| token.number().get()));
        section();
    }
}

impl Locks for LockMap {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let _guard = self.entry_by_ref(key.as_str());
        section();
    }
}

impl Locks for Lockable {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let _guard = self.blocking_lock(key.clone());
        section();
    }
}

impl AsyncLocks for Lockable {
    async fn with(&self, key: &Key, section: impl FnOnce() + Send) {
        let _guard = self.async_lock(key.clone()).await;
        section();
    }
}

impl Locks for keyed_lock::sync::KeyedLock<Key> {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let _guard = self.lock(key.clone());
        section();
    }
}

impl AsyncLocks for keyed_lock::r#async::KeyedLock<Key> {
    async fn with(&self, key: &Key, section: impl FnOnce() + Send) {
        let _guard = self.lock(key.clone()).await;
        section();
    }
}

/// Every key exists while it is locked only, as its value is empty.
#[derive(Default)]
pub(crate) struct KeyMutex(key_mutex::std::KeyMutex<Key, ()>);

impl Locks for KeyMutex {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let _guard = self.0.lock(key.clone());
        section();
    }
}

#[derive(Default)]
pub(crate) struct KeyMutexAsync(pub(crate) key_mutex::tokio::KeyMutex<Key, ()>);

impl AsyncLocks for KeyMutexAsync {
    async fn with(&self, key: &Key, section: impl FnOnce() + Send) {
        let _guard = self.0.lock(key.clone()).await;
        section();
    }
}

/// A map of mutexes that never forgets a key, as applications write it.
#[derive(Default)]
pub(crate) struct Seed(DashMap<String, Arc<std::sync::Mutex<()>>>);

impl Locks for Seed {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let mutex = Arc::clone(&self.0.entry(key.to_string()).or_default());
        let _guard = mutex.lock();
        section();
    }
}

/// The same with a look before the entry, and a faster hash.
#[derive(Default)]
pub(crate) struct TunedSeed(
    DashMap<String, Arc<std::sync::Mutex<()>>, foldhash::fast::RandomState>,
);

impl Locks for TunedSeed {
    #[inline]
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let found = self.0.get(key.as_str()).map(|found| Arc::clone(&found));
        let mutex =
            found.unwrap_or_else(|| Arc::clone(&self.0.entry(key.to_string()).or_default()));
        let _guard = mutex.lock();
        section();
    }
}

/// Locks that know no keys: floors.
#[derive(Default)]
pub(crate) struct Keyless<M>(pub(crate) M);

impl Locks for Keyless<std::sync::Mutex<()>> {
    #[inline]
    fn with(&self, _key: &Key, section: impl FnOnce()) {
        let _guard = self.0.lock();
        section();
    }
}

impl Locks for Keyless<parking_lot::Mutex<()>> {
    #[inline]
    fn with(&self, _key: &Key, section: impl FnOnce()) {
        let _guard = self.0.lock();
        section();
    }
}

impl AsyncLocks for Keyless<tokio::sync::Mutex<()>> {
    #[inline]
    async fn with(&self, _key: &Key, section: impl FnOnce() + Send) {
        let _guard = self.0.lock().await;
        section();
    }
}

impl AsyncLocks for Keyless<async_lock::Mutex<()>> {
    #[inline]
    async fn with(&self, _key: &Key, section: impl FnOnce() + Send) {
        let _guard = self.0.lock().await;
        section();
    }
}
