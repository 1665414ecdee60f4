//! The keys that this process uses.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use lock_core::LockKey;

use crate::directory::Directory;
use crate::entry::{KeyCell, KeyState};
use crate::names::Names;

const SHARDS: usize = 16;
/// How many keys a shard may keep open without use. An acquire that finds its files open costs half.
const IDLE_PER_SHARD: usize = 8;

/// The keys that this process uses, and a few that it used lately.
#[derive(Debug)]
pub(crate) struct Table {
    directory: Arc<Directory>,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<LockKey, Arc<KeyCell>, RandomState>,
    /// How many cells may be here before the idle ones are looked for.
    limit: usize,
}

impl Table {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: Arc::new(Directory::new(directory)),
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Works on the state of a key, which is made if it is not there.
    pub(crate) fn with<R>(
        &self,
        key: &LockKey,
        work: impl FnOnce(&Arc<KeyCell>, &mut KeyState) -> R,
    ) -> R {
        loop {
            let cell = self.cell(key);
            let mut state = cell.state();
            if !state.is_retired() {
                return work(&cell, &mut state);
            }
        }
    }

    /// Works on the state of a key, if it is there.
    pub(crate) fn with_known<R>(
        &self,
        key: &LockKey,
        work: impl FnOnce(&Arc<KeyCell>, &mut KeyState) -> R,
    ) -> Option<R> {
        let cell = self.shard(key).cells.get(key).cloned()?;
        let mut state = cell.state();
        // A retired state is idle: there is nothing to work on.
        (!state.is_retired()).then(|| work(&cell, &mut state))
    }

    /// All keys in use or kept open.
    pub(crate) fn cells(&self) -> Vec<Arc<KeyCell>> {
        let mut cells = Vec::new();
        for shard in &self.shards {
            cells.extend(lock(shard).cells.values().cloned());
        }
        cells
    }

    /// Closes the files of all keys that are not in use.
    pub(crate) fn close_idle(&self) {
        for shard in &self.shards {
            let gone = lock(shard).take_idle();
            drop(gone);
        }
    }

    fn cell(&self, key: &LockKey) -> Arc<KeyCell> {
        let mut shard = self.shard(key);
        if let Some(cell) = shard.cells.get(key) {
            return Arc::clone(cell);
        }
        let gone = if shard.cells.len() >= shard.limit.max(IDLE_PER_SHARD) {
            let gone = shard.take_idle();
            // Doubling keeps the search cheap when thousands of keys are in use.
            shard.limit = shard.cells.len() * 2;
            gone
        } else {
            Vec::new()
        };
        let cell = Arc::new(KeyCell::new(key.clone(), Names::of(&self.directory, key)));
        shard.cells.insert(key.clone(), Arc::clone(&cell));
        drop(shard);
        // Closing files takes time: not under the lock.
        drop(gone);
        cell
    }

    fn shard(&self, key: &LockKey) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[(hash as usize) % SHARDS])
    }
}

impl Shard {
    /// Takes out the cells that nobody uses.
    fn take_idle(&mut self) -> Vec<Arc<KeyCell>> {
        let mut gone = Vec::new();
        self.cells.retain(|_, cell| {
            let idle = cell.try_state().is_some_and(|mut state| {
                let idle = state.is_idle();
                if idle {
                    // Invariant: set under the cell's lock, so whoever got the cell before sees it.
                    state.retire();
                }
                idle
            });
            if idle {
                gone.push(Arc::clone(cell));
            }
            !idle
        });
        gone
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
