//! What the graph knows: holders and queue of each key, waits of each owner.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::panic::Location;

use smallvec::SmallVec;

use crate::clock::Instant;
use crate::{
    DeadlockEdge, Grant, LockKey, Mode, OwnerId, OwnerOrigin, OwnerToken, Request, Validity,
};

/// A key of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) backend: u64,
    pub(super) key: LockKey,
}

/// A grant and who answers for it.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) attempt: OwnerToken,
    pub(super) owner: OwnerId,
    pub(super) mode: Mode,
    validity: Option<Validity>,
    /// Tells apart what one owner holds.
    number: u64,
}

impl Holder {
    pub(super) fn new(owner: OwnerId, mode: Mode, grant: &Grant) -> Self {
        Self {
            attempt: grant.attempt,
            owner,
            mode,
            validity: grant.validity.clone(),
            number: 0,
        }
    }

    /// Whether it still keeps others out. Nobody waits for a grant that is lost.
    pub(super) fn is_held(&self) -> bool {
        let loss = self.validity.as_ref().and_then(Validity::peek_loss);
        loss.is_none()
    }
}

/// An acquire that waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) place: Place,
    pub(super) attempt: OwnerToken,
    pub(super) owner: OwnerId,
    pub(super) mode: Mode,
    pub(super) site: Option<&'static Location<'static>>,
    deadline: Option<Instant>,
    /// Before its first poll: where it will stand at the earliest. Afterwards: where it stands.
    turn: Turn,
    queued: bool,
}

impl Wait {
    pub(super) fn new(place: Place, owner: OwnerId, request: &Request) -> Self {
        Self {
            place,
            attempt: request.attempt,
            owner,
            mode: request.mode,
            site: request.site,
            deadline: request.wait.deadline(),
            turn: Turn {
                rank: Reverse(request.priority),
                arrival: 0,
            },
            queued: false,
        }
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

#[derive(Debug, Default)]
struct KeyState {
    holders: SmallVec<[Holder; 1]>,
    /// Invariant: only waiters that the backend is known to have queued, in its order.
    line: BTreeMap<Turn, OwnerToken>,
    /// Waits entered here, queued or not yet.
    waits: usize,
}

/// Cycles that were warned of are remembered up to this number, then forgotten together.
const REMEMBERED_WARNINGS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    clock: u64,
    keys: HashMap<Place, KeyState>,
    waits: HashMap<OwnerToken, Entered>,
    owners: HashMap<OwnerId, SmallVec<[OwnerToken; 1]>>,
    /// What each owner holds.
    held: BTreeMap<(OwnerId, u64), Place>,
    /// How many waits are of inferred owners.
    inferred: usize,
    warned: HashSet<u64>,
}

/// A wait, and the bound of the queue before it.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) wait: Wait,
    /// Whoever was queued below this was queued before the wait was entered, hence stands before it.
    pub(super) bound: Turn,
}

impl State {
    pub(super) fn waiting(&self) -> usize {
        self.waits.len()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Enters a wait. False when the attempt holds already and so waits for nothing.
    pub(super) fn enter(&mut self, mut wait: Wait) -> bool {
        let holds = self.holder_mut(&wait.place, wait.attempt).is_some();
        if holds || self.waits.contains_key(&wait.attempt) {
            return false;
        }
        wait.turn.arrival = self.tick();
        self.owners
            .entry(wait.owner)
            .or_default()
            .push(wait.attempt);
        self.keys.entry(wait.place.clone()).or_default().waits += 1;
        self.inferred += usize::from(wait.is_inferred());
        let bound = wait.turn;
        self.waits.insert(wait.attempt, Entered { wait, bound });
        true
    }

    pub(super) fn queued(&mut self, attempt: OwnerToken) {
        let arrival = self.tick();
        let Some(Entered { wait, .. }) = self.waits.get_mut(&attempt) else {
            return;
        };
        if !wait.queued {
            wait.queued = true;
            wait.turn.arrival = arrival;
            let key = self.keys.entry(wait.place.clone()).or_default();
            key.line.insert(wait.turn, attempt);
        }
    }

    pub(super) fn withdraw(&mut self, attempt: OwnerToken) {
        let Some(Entered { wait, .. }) = self.waits.remove(&attempt) else {
            return;
        };
        if let Some(waits) = self.owners.get_mut(&wait.owner) {
            waits.retain(|other| *other != attempt);
            if waits.is_empty() {
                self.owners.remove(&wait.owner);
            }
        }
        self.inferred -= usize::from(wait.is_inferred());
        if let Some(key) = self.keys.get_mut(&wait.place) {
            key.waits -= 1;
            if wait.queued {
                key.line.remove(&wait.turn);
            }
            self.forget_if_idle(&wait.place);
        }
    }

    /// Returns the holder of the same attempt that it takes the place of: an acquire is idempotent.
    pub(super) fn hold(&mut self, place: Place, mut holder: Holder) -> Option<Holder> {
        let replaced = self.leave(&place, holder.attempt);
        holder.number = self.tick();
        self.held
            .insert((holder.owner, holder.number), place.clone());
        self.keys.entry(place).or_default().holders.push(holder);
        replaced
    }

    pub(super) fn leave(&mut self, place: &Place, attempt: OwnerToken) -> Option<Holder> {
        let holders = &mut self.keys.get_mut(place)?.holders;
        let at = holders
            .iter()
            .position(|holder| holder.attempt == attempt)?;
        let holder = holders.swap_remove(at);
        self.held.remove(&(holder.owner, holder.number));
        self.forget_if_idle(place);
        Some(holder)
    }

    pub(super) fn change_mode(&mut self, place: &Place, attempt: OwnerToken, mode: Mode) {
        if let Some(holder) = self.holder_mut(place, attempt) {
            holder.mode = mode;
        }
    }

    pub(super) fn change_owner(&mut self, place: &Place, attempt: OwnerToken, owner: OwnerId) {
        let Some(holder) = self.holder_mut(place, attempt) else {
            return;
        };
        let number = holder.number;
        let before = std::mem::replace(&mut holder.owner, owner);
        if let Some(place) = self.held.remove(&(before, number)) {
            self.held.insert((owner, number), place);
        }
    }

    fn holder_mut(&mut self, place: &Place, attempt: OwnerToken) -> Option<&mut Holder> {
        let holders = &mut self.keys.get_mut(place)?.holders;
        holders.iter_mut().find(|holder| holder.attempt == attempt)
    }

    /// Whether anyone may wait for an owner that has just entered a wait. If not, it closes no
    /// cycle, whatever it waits for.
    pub(super) fn is_waited_for(&self, owner: OwnerId) -> bool {
        let waits = self.owners.get(&owner).map_or(0, SmallVec::len);
        let mut held = self.held.range((owner, 0)..=(owner, u64::MAX));
        // Those behind it in a queue wait for it too, and it is in several only with several waits.
        waits > 1 || held.any(|(_, place)| self.keys.get(place).is_some_and(|key| key.waits > 0))
    }

    pub(super) fn has_inferred_waits(&self) -> bool {
        self.inferred > 0
    }

    fn forget_if_idle(&mut self, place: &Place) {
        let idle = |key: &KeyState| key.holders.is_empty() && key.waits == 0;
        if self.keys.get(place).is_some_and(idle) {
            self.keys.remove(place);
        }
    }

    /// The waits of one owner.
    pub(super) fn waits_of(&self, owner: OwnerId) -> impl Iterator<Item = &Entered> {
        let attempts = self.owners.get(&owner).into_iter().flatten();
        attempts.filter_map(|attempt| self.waits.get(attempt))
    }

    pub(super) fn wait(&self, attempt: OwnerToken) -> Option<&Entered> {
        self.waits.get(&attempt)
    }

    /// Who keeps others out of a key.
    pub(super) fn holders(&self, place: &Place) -> impl Iterator<Item = &Holder> {
        let holders = self
            .keys
            .get(place)
            .into_iter()
            .flat_map(|key| &key.holders);
        holders.filter(|holder| holder.is_held())
    }

    /// Who certainly stands before a wait in its queue, next one first, and behind `known`.
    pub(super) fn before(
        &self,
        entered: &Entered,
        known: Option<Turn>,
    ) -> impl Iterator<Item = (Turn, &Wait)> {
        let from = known.map_or(Bound::Unbounded, Bound::Excluded);
        let to = Bound::Excluded(entered.bound);
        let more = known.is_none_or(|known| known < entered.bound);
        let key = self.keys.get(&entered.wait.place).filter(|_| more);
        key.into_iter()
            .flat_map(move |key| key.line.range((from, to)))
            .filter_map(|(turn, attempt)| Some((*turn, &self.waits.get(attempt)?.wait)))
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
