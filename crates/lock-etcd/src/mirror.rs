//! The lines of the keys that somebody here waits for, followed by the servers' events.

mod entry;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;

use crate::layout::{Name, Place, Shard};
use crate::line::{Line, Plan, Stand};
use crate::wire::Event;
pub(crate) use entry::{Entry, News};

/// A shard that nobody waits in is watched for so long, since the next wait may come soon.
const LINGER: Duration = Duration::from_secs(20);

/// What this process follows, by shard and key.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    shards: Mutex<HashMap<Shard, Followed>>,
}

#[derive(Debug, Default)]
struct Followed {
    /// Whether its events arrive.
    live: bool,
    /// Whether they are wanted.
    watched: bool,
    entries: HashMap<Arc<str>, Arc<Entry>>,
    idle_since: Option<Instant>,
}

/// Somebody's interest in the line of a key, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Interest {
    mirror: Arc<Mirror>,
    entry: Arc<Entry>,
}

impl Interest {
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.mirror.leave(&self.entry);
    }
}

impl Mirror {
    /// Starts to follow the line of a key, if its shard is watched.
    pub(crate) fn follow(self: &Arc<Self>, place: &Place) -> Interest {
        let mut shards = self.shards();
        let followed = shards.entry(place.shard).or_default();
        followed.idle_since = None;
        let entry = followed
            .entries
            .entry(Arc::clone(&place.base))
            .or_insert_with(|| Arc::new(Entry::new(place)));
        entry
            .users
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Interest {
            mirror: Arc::clone(self),
            entry: Arc::clone(entry),
        }
    }

    fn leave(&self, entry: &Arc<Entry>) {
        let mut shards = self.shards();
        // Counted under the lock of the shards, so nobody follows it anew meanwhile.
        if entry
            .users
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed)
            > 1
        {
            return;
        }
        let shard = entry.place.shard;
        let Some(followed) = shards.get_mut(&shard) else {
            return;
        };
        followed.entries.remove(&entry.place.base);
        if followed.entries.is_empty() {
            followed.idle_since = Some(Instant::now());
            if !followed.watched {
                shards.remove(&shard);
            }
        }
    }

    /// Whether events of the shard arrive.
    pub(crate) fn is_live(&self, shard: Shard) -> bool {
        self.shards()
            .get(&shard)
            .is_some_and(|followed| followed.live)
    }

    /// Returns whether the shard has to be watched from now on, which it was not.
    pub(crate) fn want(&self, shard: Shard) -> bool {
        let mut shards = self.shards();
        let followed = shards.entry(shard).or_default();
        !std::mem::replace(&mut followed.watched, true)
    }

    /// The events of a shard arrive, all that happened after `revision`. Returns the keys to be read
    /// anew.
    pub(crate) fn started(&self, shard: Shard, revision: i64) -> Vec<Arc<Entry>> {
        let mut shards = self.shards();
        let Some(followed) = shards.get_mut(&shard) else {
            return Vec::new();
        };
        followed.live = true;
        let entries = followed.entries.values();
        entries
            .inspect(|entry| entry.follow_from(revision))
            .cloned()
            .collect()
    }

    /// The events of a shard arrive no more.
    pub(crate) fn stopped(&self, shard: Shard) {
        if let Some(followed) = self.shards().get_mut(&shard) {
            followed.live = false;
        }
    }

    /// No events arrive any more.
    pub(crate) fn all_stopped(&self) {
        for followed in self.shards().values_mut() {
            followed.live = false;
        }
    }

    /// Takes in what happened. Returns the keys it happened to.
    pub(crate) fn told(&self, shard: Shard, events: &[Event]) -> Vec<Arc<Entry>> {
        let mut touched = Vec::new();
        let mut seen = HashSet::new();
        for event in events {
            let Some(name) = event
                .entry
                .as_ref()
                .and_then(|entry| Name::parse(&entry.key))
            else {
                continue;
            };
            let entry = self.entry(shard, &name.base);
            if let Some(entry) = entry {
                entry.apply(event);
                if seen.insert(name.base) {
                    touched.push(entry);
                }
            }
        }
        touched
    }

    /// How a holder leaves and whom it lets in, as far as it is known here.
    pub(crate) fn leaving(&self, place: &Place, holder: &Stand) -> Option<Plan> {
        let entry = self.entry(place.shard, &place.base)?;
        self.is_live(place.shard)
            .then(|| entry.leaving(holder))
            .flatten()
    }

    /// Takes in a line that was read for another reason.
    pub(crate) fn read(&self, line: &Line) -> Option<Arc<Entry>> {
        let entry = self.entry(line.place.shard, &line.place.base)?;
        entry.seed(line.clone());
        Some(entry)
    }

    /// Takes in a transaction of ours ahead of its events, and tells waiters of this process.
    pub(crate) fn carried_out(&self, place: &Place, plan: &Plan, revision: i64) {
        if let Some(entry) = self.entry(place.shard, &place.base) {
            entry.carried_out(plan, revision);
        }
    }

    /// The keys that were not looked at for `check_again`, or for a second where no events arrive.
    pub(crate) fn overdue(&self, check_again: Duration) -> Vec<Arc<Entry>> {
        let shards = self.shards();
        let overdue = |followed: &Followed| {
            let limit = if followed.live {
                check_again
            } else {
                check_again.min(Duration::from_secs(1))
            };
            let due = move |entry: &&Arc<Entry>| entry.is_overdue(limit);
            followed
                .entries
                .values()
                .filter(due)
                .cloned()
                .collect::<Vec<_>>()
        };
        shards.values().flat_map(overdue).collect()
    }

    /// Stops to follow shards that nobody waits in, and returns them.
    pub(crate) fn sweep(&self) -> Vec<Shard> {
        let mut shards = self.shards();
        let idle = |followed: &Followed| {
            followed
                .idle_since
                .is_some_and(|since| (since + LINGER).has_passed())
        };
        let gone: Vec<Shard> = shards
            .iter()
            .filter(|(_, followed)| idle(followed))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in &gone {
            shards.remove(shard);
        }
        gone
    }

    fn entry(&self, shard: Shard, base: &str) -> Option<Arc<Entry>> {
        self.shards().get(&shard)?.entries.get(base).cloned()
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<Shard, Followed>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
