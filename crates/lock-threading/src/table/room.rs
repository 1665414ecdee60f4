//! The keys behind a group of slots that have more than one user, or no slot left.

use std::task::Waker;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use lock_core::{Mode, Refusal, Ticket};

use super::slots::{Front, Manner};
use super::{
    Ask, Attempt, Claim, Details, Entered, Held, Party, Pass, Queue, Refused, Seat, Wakers, seat,
};

/// A room that is nearly empty keeps this much space, and gives the rest back.
const SPARE: usize = 16;

/// A key that is held or waited for.
#[derive(Debug)]
pub(super) struct Entry<K, D> {
    pub(super) hash: u64,
    pub(super) key: K,
    pub(super) state: State<D>,
}

/// One exclusive or shared holder that is alone needs no queue.
///
/// A queue without holders belongs to a waiter that was called and lets others barge. Nobody holds
/// it back if the slot in front is taken meanwhile, also with this key: that holder
/// [moves in](Room::admit_from_slot) as soon as anyone comes who has to do with the entry.
#[derive(Debug)]
pub(super) enum State<D> {
    Single(Single<D>),
    Queue(Box<Queue<D>>),
}

#[derive(Debug)]
pub(super) struct Single<D> {
    pub(super) details: D,
    number: u64,
    /// Or else exclusive. Not a [`Mode`], which would make the entry half as large again.
    is_shared: bool,
}

#[derive(Debug)]
pub(super) struct Room<K, D> {
    entries: HashTable<Entry<K, D>>,
}

impl<K, D> Default for Room<K, D> {
    fn default() -> Self {
        Self {
            entries: HashTable::new(),
        }
    }
}

/// What somebody brings who enters. Borrowed, for a copy of what has just been made would have to wait
/// until it has arrived.
pub(super) struct Newcomer<'a, K, D> {
    pub(super) key: &'a mut Option<K>,
    pub(super) details: &'a mut Option<D>,
    pub(super) waker: &'a mut Option<Waker>,
}

/// What went with somebody who left, to be dropped once nothing is locked: it may run code of users.
pub(super) struct Left<K, D> {
    waker: Option<Waker>,
    entry: Option<Entry<K, D>>,
}

impl<K, D> Default for Left<K, D> {
    fn default() -> Self {
        Self {
            waker: None,
            entry: None,
        }
    }
}

/// Waiters whose wait was ended for them.
pub(super) struct Drained<K, D> {
    pub(super) wakers: Vec<Waker>,
    _parties: Vec<Party<D>>,
    _entry: Option<Entry<K, D>>,
}

impl<K, D: Details> Entry<K, D> {
    /// Changes the entry, and tells the slot in front whether it has to stay crowded.
    pub(super) fn change<R>(
        &mut self,
        front: &Front<'_, Held<K, D>>,
        change: impl FnOnce(&mut State<D>) -> R,
    ) -> R {
        let before = self.state.keeps_crowded();
        let result = change(&mut self.state);
        front.note(before, self.state.keeps_crowded());
        result
    }
}

impl<D: Details> State<D> {
    /// The first user of a key, which holds at once. Inlined, as is [`Room::insert`], for a copy from
    /// function to function would cost a third of a key that stands beside another.
    #[inline(always)]
    pub(super) fn first(ask: &Ask<'_>, number: u64, details: D) -> (Self, Pass) {
        if Manner::of(ask.mode).is_some() {
            let pass = Pass::alone(number, ask.mode);
            return (Self::Single(Single::new(pass, details)), pass);
        }
        let mut queue = Box::new(Queue::new());
        let party = seat::party(ask, Seat::holding(number, details));
        let pass = seat::enter(&mut queue, party);
        (Self::Queue(queue), pass)
    }

    /// Whether the slot in front must not be taken without a look in here: the key is held, nobody of
    /// the priority that takes slots may barge, or a reader has to be refused.
    fn keeps_crowded(&self) -> bool {
        match self {
            Self::Single(_) => true,
            Self::Queue(queue) => {
                let is_held = queue.holders().next().is_some();
                is_held
                    || queue.head().is_some_and(|head| head.priority > 0)
                    || matches!(queue.admits(Mode::Shared, 0), Err(Refusal::Conflict(_)))
            }
        }
    }

    /// The queue, which a single holder gets now.
    pub(super) fn queue(&mut self) -> &mut Queue<D> {
        if let Self::Single(_) = self {
            let queue = Self::Queue(Box::new(Queue::new()));
            let single = std::mem::replace(self, queue);
            if let (Self::Queue(queue), Self::Single(single)) = (&mut *self, single) {
                queue.enter(seat::alone(single.pass(), single.details));
            }
        }
        match self {
            Self::Queue(queue) => queue,
            Self::Single(_) => unreachable!("it was replaced above"),
        }
    }

    /// Holds, queues, or says that the key is contended.
    pub(super) fn enter(
        &mut self,
        ask: &Ask<'_>,
        is_open: Result<(), Refused>,
        newcomer: &mut Newcomer<'_, impl Sized, D>,
        front: &Front<'_, impl Sized>,
    ) -> Result<Entered, Refused> {
        if D::ASKS_AGAIN
            && let Some(pass) = self.pass_of(ask.attempt)
        {
            return Ok(Entered::Holds(pass));
        }
        is_open?;
        if let Self::Single(single) = self
            && newcomer.waker.is_none()
            && ask.is_excluded_by(single.pass())
        {
            return Ok(Entered::Contended);
        }
        let queue = self.queue();
        let may_enter = seat::may_enter(queue, ask)?;
        if !may_enter && newcomer.waker.is_none() {
            return Ok(Entered::Contended);
        }
        if D::ASKS_AGAIN
            && let Some(waiter) = queue.waiter_mut(ask.attempt)
        {
            std::mem::swap(&mut waiter.data.waker, newcomer.waker);
            return Ok(Entered::Waits(None));
        }
        let Some(details) = newcomer.details.take() else {
            return Ok(Entered::Contended);
        };
        if may_enter {
            let party = seat::party(ask, Seat::holding(front.draw(), details));
            return Ok(Entered::Holds(seat::enter(queue, party)));
        }
        let seat = Seat::waiting(ask.fairness, newcomer.waker.take(), details);
        let ticket = queue.enqueue(seat::party(ask, seat));
        Ok(Entered::Waits(Some(ticket)))
    }

    /// What a holder got.
    pub(super) fn pass_of(&mut self, attempt: Attempt) -> Option<Pass> {
        match self {
            Self::Single(single) => {
                (single.details.attempt() == Some(attempt)).then(|| single.pass())
            }
            Self::Queue(queue) => Some(Pass::of(queue.holder_mut(attempt)?)),
        }
    }

    /// The attempt that a claim is about, if it is here.
    fn claimed(&self, claim: Claim) -> Option<Claimed> {
        match (self, claim) {
            (Self::Single(single), Claim::Number(claimed)) => {
                (single.number == claimed).then_some(Claimed::Single)
            }
            (Self::Single(single), Claim::Attempt(attempt, _)) => {
                (single.details.attempt() == Some(attempt)).then_some(Claimed::Single)
            }
            (Self::Queue(queue), Claim::Number(claimed)) => queue
                .holders()
                .find(|holder| holder.data.number() == claimed)
                .map(|holder| Claimed::Party(holder.attempt, None)),
            (Self::Queue(_), Claim::Attempt(attempt, ticket)) => {
                Some(Claimed::Party(attempt, ticket))
            }
        }
    }
}

impl<D> Single<D> {
    fn new(pass: Pass, details: D) -> Self {
        Self {
            details,
            number: pass.number,
            is_shared: pass.mode == Mode::Shared,
        }
    }

    pub(super) fn pass(&self) -> Pass {
        let mode = if self.is_shared {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        Pass::alone(self.number, mode)
    }
}

enum Claimed {
    Single,
    Party(Attempt, Option<Ticket>),
}

impl<K, D: Details> Room<K, D> {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<K, D>> {
        self.entries.iter()
    }

    /// The hashes of those that keep the slot in front crowded.
    pub(super) fn crowding(&self) -> impl Iterator<Item = u64> {
        let crowding = |entry: &&Entry<K, D>| entry.state.keeps_crowded();
        self.entries.iter().filter(crowding).map(|entry| entry.hash)
    }

    pub(super) fn find_mut(
        &mut self,
        hash: u64,
        same: impl Fn(&K) -> bool,
    ) -> Option<&mut Entry<K, D>> {
        self.entries
            .find_mut(hash, |entry| entry.hash == hash && same(&entry.key))
    }

    /// Adds the entry of a key that somebody holds.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: Entry<K, D>, front: &Front<'_, Held<K, D>>) {
        front.note(false, entry.state.keeps_crowded());
        self.entries
            .insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    /// The slot's holder moves to the entry of its key, so that others can queue behind it. The
    /// result is what is left of it.
    pub(super) fn admit_from_slot(
        &mut self,
        hash: u64,
        alike: impl Fn(&K, &K) -> bool,
        front: &Front<'_, Held<K, D>>,
    ) -> Option<K> {
        // A comparison may panic, so the holder stays where it is until its place is known.
        let at = front.with_holder(|holder| {
            let is_it = |entry: &Entry<K, D>| entry.hash == hash && alike(&entry.key, &holder.key);
            self.entries.find_bucket_index(hash, is_it)
        })?;
        let (pass, Held { key, details }) = front.take()?;
        let Some(entry) = at.and_then(|at| self.entries.get_bucket_mut(at)) else {
            let state = State::Single(Single::new(pass, details));
            self.insert(Entry { hash, key, state }, front);
            return None;
        };
        // Invariant: nobody holds it in here, or else the slot would have been crowded.
        entry.change(front, |state| {
            state.queue().barge(seat::alone(pass, details))
        });
        Some(key)
    }

    /// Ends a hold or a wait, lets in whoever is next, and forgets a key that nobody uses. Returns
    /// whether it was there.
    pub(super) fn leave(
        &mut self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        claim: Claim,
        front: &Front<'_, Held<K, D>>,
        left: &mut Left<K, D>,
        wakers: &mut Wakers,
    ) -> bool {
        let is_it = |entry: &Entry<K, D>| match claim {
            // A number is one hold of the slot; no need to look at the key.
            Claim::Number(_) => entry.hash == hash && entry.state.claimed(claim).is_some(),
            Claim::Attempt(..) => entry.hash == hash && same(&entry.key),
        };
        let Place::Occupied(mut place) = self.entries.entry(hash, is_it, |entry| entry.hash) else {
            return false;
        };
        let state = &mut place.get_mut().state;
        let Some(claimed) = state.claimed(claim) else {
            return false;
        };
        let kept_crowded = state.keeps_crowded();
        if let (State::Queue(queue), Claimed::Party(attempt, ticket)) = (&mut *state, claimed) {
            // A waiter behind another one keeps nobody out when it leaves.
            let was_behind = queue.head().is_some_and(|head| head.attempt != attempt);
            let party = match ticket {
                Some(ticket) => queue.withdraw_with(ticket, attempt),
                None => queue.withdraw(attempt),
            };
            let Some(party) = party else {
                return false;
            };
            let held = party.data.number() != 0;
            left.waker = party.data.waker;
            front.forget_let_in(attempt);
            if held || !was_behind {
                seat::admit(queue, None, front, wakers);
            }
            if !queue.is_idle() {
                front.note(kept_crowded, state.keeps_crowded());
                return true;
            }
        }
        left.entry = Some(place.remove().0);
        front.note(kept_crowded, false);
        self.give_space_back();
        true
    }

    /// Ends every wait, and forgets keys that nobody holds. Of a table that closes, for the slots
    /// in front are not told.
    pub(super) fn drain_waiters(&mut self) -> Vec<Drained<K, D>> {
        let mut drained = Vec::new();
        let mut idle = Vec::new();
        for entry in self.entries.iter_mut() {
            let State::Queue(queue) = &mut entry.state else {
                continue;
            };
            let mut parties: Vec<_> = queue.drain_waiters().collect();
            let wakers = parties
                .iter_mut()
                .filter_map(|party| party.data.waker.take());
            drained.push(Drained {
                wakers: wakers.collect(),
                _parties: parties,
                _entry: None,
            });
            if queue.is_idle() {
                idle.push(entry.hash);
            }
        }
        for hash in idle {
            let is_idle = |entry: &Entry<K, D>| matches!(&entry.state, State::Queue(queue) if queue.is_idle());
            if let Ok(place) = self.entries.find_entry(hash, is_idle) {
                drained.push(Drained {
                    wakers: Vec::new(),
                    _parties: Vec::new(),
                    _entry: Some(place.remove().0),
                });
            }
        }
        drained
    }

    fn give_space_back(&mut self) {
        let (used, space) = (self.entries.len(), self.entries.capacity());
        if space > SPARE && used < space / 8 {
            self.entries.shrink_to(used * 2, |entry| entry.hash);
        }
    }
}
