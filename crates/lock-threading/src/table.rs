//! The table of keys in use: what [`KeyedLocks`](crate::KeyedLocks) and the backend stand on.
//!
//! A holder that is alone sits in a [slot](slots); whoever comes second moves to the room behind it,
//! where an [entry](room) per key keeps holders and waiters in order. An entry goes with its last
//! user, so a key that nobody uses costs nothing.

mod ask;
#[cfg(all(test, any(loom, races, shuttle)))]
mod models;
mod room;
mod seat;
mod slot;
mod slots;

use std::task::{Poll, Waker};

use lock_core::{fork, runtime};

use crate::sync::{AtomicBool, Ordering};
pub(crate) use ask::{Ask, Claim, Entered, Refused, Sought};
use room::{Entry, Left, Newcomer, Room, State};
use seat::{NeedsWaker, Visitor};
pub(crate) use seat::{Pass, Seat};
pub(crate) use slots::{Crowded, Glimpse, LAST_NUMBER, Manner};
use slots::{FIRST_SLOTS, Open, Slots};

/// An attempt of this process: the [counter](lock_core::OwnerToken::counter) of its token, a third as
/// large.
pub(crate) type Attempt = u64;

/// The holders and waiters of a key.
pub(crate) type Queue<D> = lock_core::KeyQueue<Seat<D>, Attempt>;

/// One of them.
pub(crate) type Party<D> = lock_core::Party<Seat<D>, Attempt>;

/// What the table's user keeps about a holder or waiter.
pub(crate) trait Details: Send {
    /// Whether an attempt may ask again while it waits or holds, and is then to have one place.
    const ASKS_AGAIN: bool;

    /// The attempt that holds, where the user keeps it.
    fn attempt(&self) -> Option<Attempt>;

    /// It was handed the lock now.
    fn note_grant(&mut self);
}

impl Details for () {
    const ASKS_AGAIN: bool = false;

    fn attempt(&self) -> Option<Attempt> {
        None
    }

    fn note_grant(&mut self) {}
}

/// A key in use, with what is kept about who uses it.
#[derive(Debug)]
pub(crate) struct Held<K, D> {
    pub(crate) key: K,
    pub(crate) details: D,
}

/// Wakers to run once nothing is locked: mostly one.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else {
            self.others.extend(waker);
        }
    }

    #[inline]
    fn wake(self) {
        if let Some(first) = self.first {
            runtime::wake(first);
            self.others.into_iter().for_each(runtime::wake);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table<K, D: Details> {
    slots: Slots<Held<K, D>, Room<K, D>>,
    closed: AtomicBool,
    /// The fork generation it was made in: a child's copy stays as it was.
    generation: u64,
}

impl<K: Send, D: Details> Table<K, D> {
    /// A table whose fast path serves about `slots` holders at a time.
    pub(crate) fn new(slots: usize) -> Self {
        Self::growing_from(FIRST_SLOTS, slots)
    }

    /// The same with that many at first.
    fn growing_from(first: usize, slots: usize) -> Self {
        Self {
            slots: Slots::new(first, slots),
            closed: AtomicBool::new(false),
            generation: fork::generation(),
        }
    }

    /// Holds at once, if nobody is near. `make` says what is to be kept; it runs with nothing locked.
    #[inline]
    pub(crate) fn try_hold(
        &self,
        hash: u64,
        attempt: Option<u64>,
        manner: Manner,
        make: impl FnOnce() -> Held<K, D>,
    ) -> Option<u64> {
        self.slots.try_hold(hash, attempt, manner, make)
    }

    /// Ends a hold, which may be in its slot if it is of this manner. Returns whether it was there.
    #[inline]
    pub(crate) fn release(&self, hash: u64, number: u64, manner: Manner) -> bool {
        let left = self.slots.try_leave(hash, number, manner);
        left.is_some() || self.release_crowded(hash, number)
    }

    /// The same for a hold that is most likely not in its slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn release_crowded(&self, hash: u64, number: u64) -> bool {
        // A child may leave a slot of its copy, but a mutex of it may belong to a thread that stayed.
        self.generation == fork::generation() && self.leave(hash, |_| true, Claim::Number(number))
    }

    /// Ends a hold that is alone in its slot, and says whether it was; or that one has to
    /// [`leave`](Self::leave).
    #[inline]
    pub(crate) fn release_attempt(&self, hash: u64, attempt: u64) -> Result<bool, Crowded> {
        let left = self.slots.try_leave_by_attempt(hash, attempt)?;
        Ok(left.is_some())
    }

    /// What a thread sees that spins for this key.
    #[inline]
    pub(crate) fn glimpse(&self, hash: u64) -> Glimpse {
        self.slots.glimpse(hash)
    }

    /// Whether the slot is taken by another key, which nobody else has to do with; then this key is
    /// most likely free.
    #[inline]
    pub(crate) fn is_beside_another(&self, hash: u64) -> bool {
        self.slots.has_another(hash)
    }

    /// Holds at once, queues, or says that the key is contended.
    pub(crate) fn enter(
        &self,
        ask: &Ask<'_>,
        sought: &impl Sought<K>,
        details: D,
    ) -> Result<Entered, Refused> {
        // What is not used of this is dropped once nothing is locked.
        let (mut waker, mut details) = (ask.waker.cloned(), Some(details));
        let mut key = self.is_beside_another(ask.hash).then(|| sought.make());
        let mut newcomer = Newcomer {
            key: &mut key,
            details: &mut details,
            waker: &mut waker,
        };
        let entered = loop {
            match self.enter_with(ask, sought, &mut newcomer)? {
                Some(entered) => break entered,
                None => *newcomer.key = Some(sought.make()),
            }
        };
        self.slots.grow_if_needed();
        Ok(entered)
    }

    /// `None` if a key is needed.
    fn enter_with(
        &self,
        ask: &Ask<'_>,
        sought: &impl Sought<K>,
        newcomer: &mut Newcomer<'_, K, D>,
    ) -> Result<Option<Entered>, Refused> {
        let (_from_slot, _from_slots);
        let mut open = self.slots.open(ask.hash);
        if self.slots.is_left_behind(&open) {
            _from_slots = self.move_room(&mut open, ask.hash, sought);
        }
        let same = |key: &K| sought.is(key);
        let pass = open.holder();
        let holder = open.with_holder(|holder| same(&holder.key).then(|| holder.details.attempt()));
        if let (Some(pass), Some(Some(holder))) = (pass, holder) {
            if D::ASKS_AGAIN && holder == Some(ask.attempt) {
                return Ok(Some(Entered::Holds(pass)));
            }
            self.check_open()?;
            if newcomer.waker.is_none() && ask.is_excluded_by(pass) {
                return Ok(Some(Entered::Contended));
            }
            _from_slot = admit_from_slot(&mut open, ask.hash, same);
        }
        let is_open = self.check_open();
        let (room, front) = open.room();
        if let Some(entry) = room.find_mut(ask.hash, same) {
            let entered = entry.change(&front, |state| state.enter(ask, is_open, newcomer, &front));
            return entered.map(Some);
        }
        is_open?;
        let Some(key) = newcomer.key.take() else {
            return Ok(None);
        };
        let Some(details) = newcomer.details.take() else {
            return Ok(Some(Entered::Contended));
        };
        self.slots.note_newcomer(&front);
        if let (Some(manner), None) = (Manner::of(ask.mode), pass) {
            // Nobody is in the slot, so there is no need for an entry.
            let counter = D::ASKS_AGAIN.then_some(ask.attempt);
            let number = open.put(manner, counter, Held { key, details });
            let number = number.unwrap_or(LAST_NUMBER + 1);
            return Ok(Some(Entered::Holds(Pass::alone(number, ask.mode))));
        }
        let number = front.draw();
        let (state, pass) = State::first(ask, number, details);
        let hash = ask.hash;
        room.insert(Entry { hash, key, state }, &front);
        Ok(Some(Entered::Holds(pass)))
    }

    /// Moves an opened room to its slots among the many. The result is to be dropped once nothing is
    /// locked.
    #[cold]
    fn move_room<'a>(
        &'a self,
        open: &mut Open<'a, Held<K, D>, Room<K, D>>,
        hash: u64,
        sought: &impl Sought<K>,
    ) -> Vec<K> {
        let mut from_slots = Vec::new();
        let empty = |open: &mut Open<'_, _, _>| {
            let hash = open.with_holder(|holder: &mut Held<K, D>| sought.hash_of(&holder.key));
            let alike = |one: &K, other: &K| sought.are_same(one, other);
            from_slots.extend(hash.and_then(|hash| move_to_room(open, hash, alike)));
        };
        self.slots.move_room(hash, open, empty, |room, crowd| {
            room.crowding().for_each(crowd);
        });
        from_slots
    }

    /// Asks whether a waiter has been let in. `None` when it is not known any more.
    pub(crate) fn poll(
        &self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        attempt: Attempt,
        waker: &Waker,
    ) -> Option<Poll<Pass>> {
        if let Some(number) = self.slots.let_in(hash, attempt) {
            return Some(Poll::Ready(Pass::exclusive(number)));
        }
        let mut visitor = Visitor {
            attempt,
            waker,
            spare: None,
        };
        loop {
            match self.visit_entry(hash, &same, &mut visitor) {
                Ok(found) => return found,
                // With nothing locked.
                Err(NeedsWaker) => visitor.spare = Some(waker.clone()),
            }
        }
    }

    fn visit_entry(
        &self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        visitor: &mut Visitor<'_>,
    ) -> Result<Option<Poll<Pass>>, NeedsWaker> {
        let mut wakers = Wakers::default();
        let _from_slot;
        let outcome = {
            let mut open = self.slots.open(hash);
            _from_slot = admit_from_slot(&mut open, hash, &same);
            let (room, front) = open.room();
            let Some(entry) = room.find_mut(hash, same) else {
                return Ok(None);
            };
            entry.change(&front, |state| match state {
                State::Queue(queue) => seat::look_in(queue, visitor, &front, &mut wakers),
                State::Single(_) => Ok(None),
            })
        };
        wakers.wake();
        outcome
    }

    /// Ends a hold or a wait, and lets in whoever is next. Returns whether it was there.
    pub(crate) fn leave(&self, hash: u64, same: impl Fn(&K) -> bool, claim: Claim) -> bool {
        let mut wakers = Wakers::default();
        // What goes is dropped with nothing locked.
        let mut left = Left::default();
        let (_from_slot, _held);
        let was_there = {
            let mut open = self.slots.open(hash);
            if let Some(held) = claim_slot(&mut open, &same, claim) {
                _held = held;
                true
            } else {
                if let Claim::Attempt(..) = claim {
                    _from_slot = admit_from_slot(&mut open, hash, &same);
                }
                let (room, front) = open.room();
                room.leave(hash, &same, claim, &front, &mut left, &mut wakers)
            }
        };
        wakers.wake();
        was_there
    }

    /// Changes what is known of a holder, in the queue of its key; `None` when it does not hold.
    pub(crate) fn alter<T>(
        &self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        attempt: Attempt,
        change: impl FnOnce(&mut Queue<D>, &mut dyn FnMut(&mut Seat<D>)) -> T,
    ) -> Option<T> {
        let mut wakers = Wakers::default();
        let _from_slot;
        let changed = {
            let mut open = self.slots.open(hash);
            _from_slot = admit_from_slot(&mut open, hash, &same);
            let (room, front) = open.room();
            let entry = room.find_mut(hash, same)?;
            entry.change(&front, |state| {
                let queue = state.queue();
                queue.holder_mut(attempt)?;
                let changed = change(queue, &mut |seat| {
                    seat.grant(front.draw());
                    wakers.add(seat.waker.take());
                });
                seat::seat_permits(queue);
                Some(changed)
            })
        };
        wakers.wake();
        changed
    }

    /// Grants no more, and ends every wait.
    pub(crate) fn close(&self) {
        // Invariant: set before any room is visited, and read in the room by whoever queues; so
        // nobody can queue in a room that has been drained.
        self.closed.store(true, Ordering::SeqCst);
        let mut gone = Vec::new();
        self.slots
            .visit(|_, _| {}, |room| gone.extend(room.drain_waiters()));
        let wakers = gone.iter_mut().flat_map(|gone| gone.wakers.drain(..));
        wakers.for_each(runtime::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Visits every key in use: a holder that is alone, or the queue.
    pub(crate) fn visit(
        &self,
        mut alone: impl FnMut(&K, &D, Pass),
        mut queued: impl FnMut(&K, &Queue<D>),
    ) {
        let alone = std::cell::RefCell::new(&mut alone);
        self.slots.visit(
            |held, pass| (alone.borrow_mut())(&held.key, &held.details, pass),
            |room| {
                for entry in room.entries() {
                    match &entry.state {
                        State::Single(single) => {
                            (alone.borrow_mut())(&entry.key, &single.details, single.pass());
                        }
                        State::Queue(queue) => queued(&entry.key, queue),
                    }
                }
            },
        );
    }

    /// How many of those hold a key whose details are `counted`.
    ///
    /// Whoever takes or leaves the key later than this has seen it sees all that was written before.
    pub(crate) fn holders(
        &self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        counted: impl Fn(&D) -> bool,
    ) -> usize {
        let mut open = self.slots.open(hash);
        let alone = open.with_holder(|holder| same(&holder.key) && counted(&holder.details));
        let (room, _) = open.room();
        let here = room
            .find_mut(hash, same)
            .map_or(0, |entry| match &entry.state {
                State::Single(single) => usize::from(counted(&single.details)),
                State::Queue(queue) => {
                    let details = queue.holders().map(|holder| &holder.data.details);
                    details.filter(|details| counted(details)).count()
                }
            });
        usize::from(alone == Some(true)) + here
    }

    /// How many keys are held or waited for. One that somebody took ahead of a waiter that is on its
    /// way counts twice.
    pub(crate) fn len(&self) -> usize {
        let (mut alone, mut queued) = (0, 0);
        self.visit(|_, _, _| alone += 1, |_, _| queued += 1);
        alone + queued
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.is_closed() {
            Err(Refused::Closed)
        } else {
            Ok(())
        }
    }
}

/// If the slot's holder has the key, it moves to the room, so that others can queue behind it. The
/// result is to be dropped once nothing is locked.
fn admit_from_slot<K, D: Details>(
    open: &mut Open<'_, Held<K, D>, Room<K, D>>,
    hash: u64,
    same: impl Fn(&K) -> bool,
) -> Option<K> {
    if !open.with_holder(|holder| same(&holder.key))? {
        return None;
    }
    move_to_room(open, hash, |kept, _| same(kept))
}

/// The slot's holder, whose key has this hash, moves to the room.
fn move_to_room<K, D: Details>(
    open: &mut Open<'_, Held<K, D>, Room<K, D>>,
    hash: u64,
    alike: impl Fn(&K, &K) -> bool,
) -> Option<K> {
    let (room, front) = open.room();
    room.admit_from_slot(hash, alike, &front)
}

fn claim_slot<K, D: Details>(
    open: &mut Open<'_, Held<K, D>, Room<K, D>>,
    same: impl Fn(&K) -> bool,
    claim: Claim,
) -> Option<Held<K, D>> {
    let number = open.holder()?.number;
    let is_it = open.with_holder(|holder| match claim {
        Claim::Number(claimed) => claimed == number,
        Claim::Attempt(attempt, _) => {
            holder.details.attempt() == Some(attempt) && same(&holder.key)
        }
    })?;
    if is_it { Some(open.take()?.1) } else { None }
}
