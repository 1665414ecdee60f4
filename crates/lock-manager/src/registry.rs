//! Which names are in use, or registered on purpose.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lock_core::LockKey;

use crate::tracked::Tracked;

/// The names of one process. A name that has no handle, no guard and no registration has no entry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

const SHARDS: usize = 16;

/// A table smaller than this is not worth shrinking.
const SMALL: usize = 64;

type Shard = HashMap<LockKey, Entry>;

/// Invariant: no [`Tracked`] is dropped while a shard is locked, because its drop locks the shard.
#[derive(Debug)]
struct Entry {
    backend: Arc<str>,
    /// The first alive is the identity of the name. Others come only from before a fork.
    alive: Vec<Weak<Tracked>>,
    registered: Option<Arc<Tracked>>,
}

/// Why a name cannot be had as asked.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is in use with this backend.
    OtherBackend(Arc<str>),
    /// So many hold it here, and so many wait for it.
    InUse(usize, usize),
}

impl Registry {
    /// The name as it is in use, if it is.
    pub(crate) fn find(&self, key: &LockKey) -> Option<Arc<Tracked>> {
        self.shard(key).get(key).and_then(Entry::identity)
    }

    /// The name, in use with `backend` from now on, and registered if that is wanted.
    pub(crate) fn obtain(
        &self,
        key: &LockKey,
        backend: &Arc<str>,
        register: bool,
        make: impl FnOnce() -> Arc<Tracked>,
    ) -> Result<Arc<Tracked>, Refused> {
        let mut shard = self.shard(key);
        // Dead entries may not have been removed yet: then their drop is waiting for this shard.
        let identity = shard.get(key).and_then(Entry::identity);
        let tracked = match identity {
            Some(tracked) if tracked.backend_name() != backend => {
                let other = Arc::clone(tracked.backend_name());
                drop(shard);
                return Err(Refused::OtherBackend(other));
            }
            Some(tracked) => tracked,
            None => make(),
        };
        let entry = shard.entry(key.clone()).or_insert_with(|| Entry {
            backend: Arc::clone(backend),
            alive: Vec::with_capacity(1),
            registered: None,
        });
        entry.backend = Arc::clone(backend);
        entry.admit(&tracked);
        if register {
            entry.registered.get_or_insert_with(|| Arc::clone(&tracked));
        }
        Ok(tracked)
    }

    /// Enters a name that was obtained before a fork.
    pub(crate) fn adopt(&self, tracked: &Arc<Tracked>) {
        let mut shard = self.shard(tracked.key());
        let entry = shard.entry(tracked.key().clone()).or_insert_with(|| Entry {
            backend: Arc::clone(tracked.backend_name()),
            alive: Vec::with_capacity(1),
            registered: None,
        });
        entry.admit(tracked);
    }

    /// Drops the registration. Says whether there was one.
    pub(crate) fn remove(&self, key: &LockKey) -> Result<bool, Refused> {
        let mut shard = self.shard(key);
        let Some(entry) = shard.get_mut(key) else {
            return Ok(false);
        };
        if entry.registered.is_none() {
            return Ok(false);
        }
        let alive = entry.all();
        let counts = alive.iter().map(|tracked| tracked.count());
        let (held, waiting) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let removed = if held + waiting == 0 {
            entry.registered.take()
        } else {
            None
        };
        drop(shard);
        match removed {
            Some(_) => Ok(true),
            None => Err(Refused::InUse(held, waiting)),
        }
    }

    /// Every name and its backend.
    pub(crate) fn list(&self) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        for shard in &self.shards {
            for (key, entry) in &*lock(shard) {
                if entry.is_alive() {
                    names.insert(key.name().to_owned(), entry.backend.to_string());
                }
            }
        }
        names
    }

    /// Every name in use.
    pub(crate) fn all(&self) -> Vec<Arc<Tracked>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).values().flat_map(Entry::all));
        }
        all
    }

    /// Removes a name that nobody has any more.
    pub(crate) fn forget(&self, key: &LockKey) {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.get_mut(key) {
            entry.alive.retain(|weak| weak.strong_count() > 0);
            if entry.alive.is_empty() {
                shard.remove(key);
            }
        }
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / 8 {
            let len = shard.len();
            shard.shrink_to(len * 2);
        }
    }

    fn shard(&self, key: &LockKey) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[hash as usize % SHARDS])
    }
}

impl Entry {
    fn identity(&self) -> Option<Arc<Tracked>> {
        self.alive.iter().find_map(Weak::upgrade)
    }

    fn all(&self) -> Vec<Arc<Tracked>> {
        self.alive.iter().filter_map(Weak::upgrade).collect()
    }

    fn is_alive(&self) -> bool {
        self.alive.iter().any(|weak| weak.strong_count() > 0)
    }

    fn admit(&mut self, tracked: &Arc<Tracked>) {
        let is_there = |weak: &Weak<Tracked>| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(tracked));
        if !self.alive.iter().any(is_there) {
            self.alive.push(Arc::downgrade(tracked));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
