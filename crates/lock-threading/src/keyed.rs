//! Locks by key of any type, without a backend in between.

mod acquire;
mod asking;
mod guard;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use lock_core::Mode;
use lock_core::fork::ForkLocal;

pub use acquire::{AcquireKey, AcquireKeyWith};
pub use guard::{KeyGuard, OwnedKeyGuard};

use crate::Fairness;
use crate::table::Table;
use asking::{Asking, Plain};

/// How many slots there are in the end, unless told otherwise: with 10,000 keys held, six of seven
/// others still find theirs free.
const SLOTS: usize = 1 << 16;

/// One lock for each key in use, for the tasks and threads of one process.
///
/// The fastest way to lock by key where nothing else is needed: no names, no configuration, no
/// dynamic dispatch. A key costs nothing while nobody holds it or waits for it.
///
/// ```
/// use lock_threading::KeyedLocks;
///
/// let workflows = KeyedLocks::<u64>::new();
/// let guard = workflows.acquire(&42).wait(); // `.acquire(&42).await` in a task: the same queue
/// assert!(workflows.try_acquire(&42).is_none());
/// assert!(workflows.try_acquire(&43).is_some());
/// drop(guard);
/// ```
///
/// Not re-entrant: a second acquire of a key waits for the first, also in the same task. The key is
/// cloned for each hold, so keys that are cheap to clone are cheap to lock.
///
/// `Eq` and `Hash` of the key must not use the same `KeyedLocks`; its `Clone` and `Drop` may.
///
/// After a `fork` the child starts with no key held, and guards copied into it release nothing.
pub struct KeyedLocks<K, S = RandomState> {
    tables: ForkLocal<Table<K, ()>>,
    slots: usize,
    tasks: Fairness,
    threads: Fairness,
    hasher: S,
}

/// How to hold a key, and how soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct KeyOptions {
    mode: Mode,
    priority: i8,
}

impl KeyOptions {
    /// Exclusive, priority 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// How to hold the key. Default: [`Mode::Exclusive`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Higher goes first; first come first served within one priority. Default: 0.
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }
}

impl<K: Send> KeyedLocks<K> {
    /// Locks with a random hash seed: tasks first come first served, threads barging within bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::with_hasher(RandomState::default())
    }
}

impl<K: Send> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Send, S> KeyedLocks<K, S> {
    /// The same with another hash function.
    #[must_use]
    pub fn with_hasher(hasher: S) -> Self {
        Self {
            tables: ForkLocal::new(),
            slots: SLOTS,
            tasks: Fairness::FirstCome,
            threads: Fairness::Barging,
            hasher,
        }
    }

    /// How many places there may be for keys that are held by one alone. There are 256 at first,
    /// which the nearest cache holds, and all of these once keys have met there twice. A key
    /// whose place is taken by another one has a hash table behind it, at a fifth of the speed; so
    /// have several times as many as are held at a time. Each takes 64 bytes, or more for keys of
    /// more than 32. Default: 65,536, which is 4 MiB once they are needed.
    #[must_use]
    pub fn with_slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Who is next among tasks. Default: [`Fairness::FirstCome`].
    #[must_use]
    pub fn with_task_fairness(mut self, fairness: Fairness) -> Self {
        self.tasks = fairness;
        self
    }

    /// Who is next among threads. Default: [`Fairness::Barging`].
    #[must_use]
    pub fn with_thread_fairness(mut self, fairness: Fairness) -> Self {
        self.threads = fairness;
        self
    }

    /// How many keys are held or waited for. Advisory, and not fast.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.table().len()
    }

    #[inline]
    fn table(&self) -> &Table<K, ()> {
        self.tables.get_or_init(|| Table::new(self.slots))
    }
}

impl<K: Send, S: BuildHasher> KeyedLocks<K, S> {
    /// Waits until the key is held exclusively: await it, or [`wait`](AcquireKey::wait) for it.
    ///
    /// # Cancel safety
    /// Dropping it at any point leaves no lock and no queue entry.
    #[inline]
    pub fn acquire<'a, 'k, Q>(&'a self, key: &'k Q) -> AcquireKey<'a, 'k, K, Q, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        AcquireKey::new(Asking::new(self, key, Plain))
    }

    /// The same in any mode and with a priority.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub fn acquire_with<'a, 'k, Q>(
        &'a self,
        key: &'k Q,
        options: KeyOptions,
    ) -> AcquireKeyWith<'a, 'k, K, Q, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        AcquireKeyWith::new(Asking::new(self, key, options))
    }

    /// One attempt to hold the key exclusively, no waiting; `None` when contended.
    #[inline]
    pub fn try_acquire<Q>(&self, key: &Q) -> Option<KeyGuard<'_, K>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        Asking::new(self, key, Plain).try_now()
    }

    /// [`acquire`](Self::acquire) whose guard keeps the locks alive, and can go anywhere.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_owned<Q>(self: &Arc<Self>, key: &Q) -> OwnedKeyGuard<K, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized + Sync,
        S: Sync,
    {
        let guard = self.acquire(key).await;
        OwnedKeyGuard::new(Arc::clone(self), guard)
    }

    /// [`try_acquire`](Self::try_acquire) whose guard keeps the locks alive.
    pub fn try_acquire_owned<Q>(self: &Arc<Self>, key: &Q) -> Option<OwnedKeyGuard<K, S>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let guard = self.try_acquire(key)?;
        Some(OwnedKeyGuard::new(Arc::clone(self), guard))
    }
}

impl<K, S> fmt::Debug for KeyedLocks<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLocks")
            .field("slots", &self.slots)
            .field("tasks", &self.tasks)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}
