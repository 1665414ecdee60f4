//! The contestants: floors without keys, peers with keys, and ours.

use std::sync::Arc;

use dashmap::DashMap;
use lock_core::Mode;
use lock_threading::{KeyGuard, KeyOptions, KeyedLocks};

use crate::keys::Key;

/// Something that runs a section under the lock of a key.
pub(crate) trait Locks: Send + Sync + 'static {
    fn with(&self, key: &Key, section: impl FnOnce());
}

/// The same for tasks, which await what the contestant makes and nothing around it.
pub(crate) trait AsyncLocks: Send + Sync + 'static {
    type Guard<'a>: Send;

    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send;

    /// Ends a hold.
    #[inline]
    fn end(guard: Self::Guard<'_>) {
        drop(guard);
    }
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
    type Guard<'a> = KeyGuard<'a, Key>;

    #[inline]
    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        Self::acquire(self, key)
    }

    #[inline]
    fn end(guard: Self::Guard<'_>) {
        std::hint::black_box(guard.fencing_token().map(|token| token.number().get()));
    }
}

/// Readers, who could go together.
#[derive(Default)]
pub(crate) struct Readers<M>(pub(crate) M);

impl Locks for Readers<Ours> {
    #[inline]
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let guard = self
            .0
            .acquire_with(key, KeyOptions::new().mode(Mode::Shared));
        let _guard = guard.wait();
        section();
    }
}

impl AsyncLocks for Readers<Ours> {
    type Guard<'a> = lock_core::Result<KeyGuard<'a, Key>>;

    #[inline]
    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.0
            .acquire_with(key, KeyOptions::new().mode(Mode::Shared))
    }
}

impl Locks for Readers<std::sync::RwLock<()>> {
    #[inline]
    fn with(&self, _key: &Key, section: impl FnOnce()) {
        let _guard = self.0.read();
        section();
    }
}

impl Locks for Readers<parking_lot::RwLock<()>> {
    #[inline]
    fn with(&self, _key: &Key, section: impl FnOnce()) {
        let _guard = self.0.read();
        section();
    }
}

impl AsyncLocks for Readers<tokio::sync::RwLock<()>> {
    type Guard<'a> = tokio::sync::RwLockReadGuard<'a, ()>;

    #[inline]
    fn acquire<'a>(&'a self, _key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.0.read()
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
    type Guard<'a> = <Self as lockable::Lockable<Key, ()>>::Guard<'a>;

    #[inline]
    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.async_lock(key.clone())
    }
}

impl Locks for keyed_lock::sync::KeyedLock<Key> {
    fn with(&self, key: &Key, section: impl FnOnce()) {
        let _guard = self.lock(key.clone());
        section();
    }
}

impl AsyncLocks for keyed_lock::r#async::KeyedLock<Key> {
    type Guard<'a> = keyed_lock::r#async::Guard<'a, Key>;

    #[inline]
    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.lock(key.clone())
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
    type Guard<'a> = key_mutex::tokio::OwnedMutexGuard<Key, ()>;

    #[inline]
    fn acquire<'a>(&'a self, key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.0.lock(key.clone())
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
    type Guard<'a> = tokio::sync::MutexGuard<'a, ()>;

    #[inline]
    fn acquire<'a>(&'a self, _key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.0.lock()
    }
}

impl AsyncLocks for Keyless<async_lock::Mutex<()>> {
    type Guard<'a> = async_lock::MutexGuard<'a, ()>;

    #[inline]
    fn acquire<'a>(&'a self, _key: &'a Key) -> impl Future<Output = Self::Guard<'a>> + Send {
        self.0.lock()
    }
}
