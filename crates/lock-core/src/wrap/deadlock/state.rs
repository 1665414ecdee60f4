//! Who waits for what: the waits, their owners, and the queue of each key that is waited for.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::panic::Location;
use std::sync::Arc;

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;

use super::place::Place;
use crate::clock::Instant;
use crate::{Anchor, DeadlockEdge, Mode, OwnerId, OwnerOrigin, OwnerToken, Request};

/// An acquire that waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) place: Arc<Place>,
    pub(super) attempt: OwnerToken,
    pub(super) owner: OwnerId,
    pub(super) mode: Mode,
    anchor: Anchor,
    site: Option<&'static Location<'static>>,
    deadline: Option<Instant>,
    /// The queue it stands in.
    pub(super) queue: QueueId,
    /// Before it is queued: where it will stand at the earliest. Afterwards: where it stands.
    turn: Turn,
    queued: bool,
    /// Whoever was queued below this was queued before the wait was entered, hence stands before it.
    pub(super) bound: Turn,
}

impl Wait {
    /// Whether the owner is proven to go on with nothing else. Of an inferred one that is known
    /// only while its thread parks.
    pub(super) fn is_proof(&self) -> bool {
        self.owner.origin() == OwnerOrigin::Explicit || self.anchor >= Anchor::Wait
    }

    /// It has timed out and is about to leave.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn is_inferred(&self) -> bool {
        self.owner.origin() != OwnerOrigin::Explicit
    }

    pub(super) fn edge(&self) -> DeadlockEdge {
        let site = self.site.map(|site| site.to_string().into());
        DeadlockEdge::new(self.owner, self.place.key.clone(), self.mode, site)
    }
}

/// Higher priority first, then first come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    rank: Reverse<i8>,
    arrival: u64,
}

pub(super) type WaitId = usize;
pub(super) type QueueId = usize;

/// The waits of one owner, each with its queue: a search goes from one to the next.
pub(super) type Waits = SmallVec<[(WaitId, QueueId); 1]>;

/// Those who wait for one key. There is one only while there are some.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) place: Arc<Place>,
    /// Invariant: only waiters that the backend is known to have queued, in its order.
    pub(super) line: BTreeMap<Turn, WaitId>,
    /// Waits entered here, queued or not yet.
    waits: usize,
    /// The last search that came by.
    pub(super) seen: u64,
}

/// Cycles that were warned of are remembered up to this number, then forgotten together.
const REMEMBERED_WARNINGS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    clock: u64,
    pub(super) waits: Slab<Wait>,
    pub(super) queues: Slab<Queue>,
    attempts: HashMap<OwnerToken, WaitId, RandomState>,
    pub(super) owners: HashMap<OwnerId, Waits, RandomState>,
    /// How many waits are of inferred owners.
    inferred: usize,
    /// How many waits there are beyond the first of each owner.
    pub(super) further: usize,
    /// Counts searches.
    pub(super) search: u64,
    /// Kept for its memory.
    pub(super) agenda: Vec<QueueId>,
    warned: HashSet<u64>,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Enters a wait. `None` when the attempt holds or waits already, and so enters nothing new.
    pub(super) fn enter(
        &mut self,
        place: &Arc<Place>,
        owner: OwnerId,
        request: &Request,
    ) -> Option<WaitId> {
        let attempt = request.attempt;
        if self.attempts.contains_key(&attempt) || place.holds(attempt) {
            return None;
        }
        let turn = Turn {
            rank: Reverse(request.priority),
            arrival: self.tick(),
        };
        let queue = place.queue().unwrap_or_else(|| {
            let queue = self.queues.insert(Queue {
                place: Arc::clone(place),
                line: BTreeMap::new(),
                waits: 0,
                seen: 0,
            });
            place.set_queue(Some(queue));
            queue
        });
        self.queues[queue].waits += 1;
        let wait = Wait {
            place: Arc::clone(place),
            attempt,
            owner,
            mode: request.mode,
            anchor: request.anchor,
            site: request.site,
            deadline: request.wait.deadline(),
            queue,
            turn,
            queued: false,
            bound: turn,
        };
        self.inferred += usize::from(wait.is_inferred());
        let id = self.waits.insert(wait);
        self.attempts.insert(attempt, id);
        let waits = self.owners.entry(owner).or_default();
        self.further += usize::from(!waits.is_empty());
        waits.push((id, queue));
        Some(id)
    }

    /// The backend has queued the attempt: later waiters stand behind it.
    pub(super) fn queued(&mut self, attempt: OwnerToken) {
        let arrival = self.tick();
        let Some(id) = self.attempts.get(&attempt).copied() else {
            return;
        };
        let wait = &mut self.waits[id];
        if !wait.queued {
            wait.queued = true;
            wait.turn.arrival = arrival;
            self.queues[wait.queue].line.insert(wait.turn, id);
        }
    }

    /// Ends a wait. The caller drops it once the graph is unlocked.
    pub(super) fn withdraw(&mut self, attempt: OwnerToken) -> Option<Wait> {
        let id = self.attempts.remove(&attempt)?;
        let wait = self.waits.remove(id);
        if let Some(waits) = self.owners.get_mut(&wait.owner) {
            waits.retain(|other| other.0 != id);
            self.further -= usize::from(!waits.is_empty());
            if waits.is_empty() {
                self.owners.remove(&wait.owner);
            }
        }
        self.inferred -= usize::from(wait.is_inferred());
        let queue = &mut self.queues[wait.queue];
        queue.waits -= 1;
        if wait.queued {
            queue.line.remove(&wait.turn);
        }
        if queue.waits == 0 {
            self.queues.remove(wait.queue);
            wait.place.set_queue(None);
        }
        Some(wait)
    }

    pub(super) fn has_inferred_waits(&self) -> bool {
        self.inferred > 0
    }

    /// The waits of one owner.
    pub(super) fn waits_of(&self, owner: OwnerId) -> impl Iterator<Item = &Wait> {
        let ids = self.owners.get(&owner).into_iter().flatten();
        ids.filter_map(|(id, _)| self.waits.get(*id))
    }

    pub(super) fn wait(&self, attempt: OwnerToken) -> Option<&Wait> {
        self.waits.get(*self.attempts.get(&attempt)?)
    }

    /// Who certainly stands before a wait in its queue, next one first, and behind `known`.
    pub(super) fn before(
        &self,
        wait: &Wait,
        known: Option<Turn>,
    ) -> impl Iterator<Item = (Turn, &Wait)> {
        let from = known.map_or(Bound::Unbounded, Bound::Excluded);
        let to = Bound::Excluded(wait.bound);
        let more = known.is_none_or(|known| known < wait.bound);
        let queue = self.queues.get(wait.queue).filter(|_| more);
        queue
            .into_iter()
            .flat_map(move |queue| queue.line.range((from, to)))
            .filter_map(|(turn, id)| Some((*turn, self.waits.get(*id)?)))
    }

    /// Whether the cycle was not warned of before: the same owners at the same keys.
    pub(super) fn is_news(&mut self, cycle: &[DeadlockEdge]) -> bool {
        let mut parts: Vec<_> = cycle.iter().map(|edge| (edge.owner, &edge.key)).collect();
        parts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        if self.warned.len() >= REMEMBERED_WARNINGS {
            self.warned.clear();
        }
        self.warned.insert(hasher.finish())
    }
}
