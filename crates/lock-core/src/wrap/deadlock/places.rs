//! The places of all keys in use.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::place::Place;
use crate::LockKey;

/// One place for each key of each backend that is held, waited for, or watched by name.
#[derive(Debug, Default)]
pub(super) struct Places {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

const SHARDS: usize = 16;

/// A table smaller than this is not worth shrinking.
const SMALL: usize = 64;

type Shard = HashMap<LockKey, Few, RandomState>;

/// Equal keys of several backends are few.
type Few = smallvec::SmallVec<[Arc<Place>; 1]>;

impl Places {
    /// The place of a key, made if there is none.
    pub(super) fn obtain(&self, backend: u64, key: &LockKey) -> Arc<Place> {
        let mut shard = self.shard(key);
        let few = shard.entry(key.clone()).or_default();
        if let Some(place) = few.iter().find(|place| place.backend == backend) {
            return Arc::clone(place);
        }
        let place = Arc::new(Place::new(backend, key.clone()));
        few.push(Arc::clone(&place));
        place
    }

    pub(super) fn find(&self, backend: u64, key: &LockKey) -> Option<Arc<Place>> {
        let shard = self.shard(key);
        let few = shard.get(key)?;
        few.iter().find(|place| place.backend == backend).cloned()
    }

    /// Forgets a place that nobody uses but the caller.
    pub(super) fn forget_if_idle(&self, place: &Arc<Place>) {
        let mut shard = self.shard(&place.key);
        // Invariant: nobody gets at a place but through its shard, or from somebody who has it.
        const HERE_AND_CALLER: usize = 2;
        if Arc::strong_count(place) > HERE_AND_CALLER || !place.is_idle() {
            return;
        }
        if let Some(few) = shard.get_mut(&place.key) {
            few.retain(|other| !Arc::ptr_eq(other, place));
            if few.is_empty() {
                shard.remove(&place.key);
            }
        }
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / 8 {
            let len = shard.len();
            shard.shrink_to(len * 2);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Place>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).values().flatten().cloned());
        }
        all
    }

    fn shard(&self, key: &LockKey) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[hash as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
