//! One attempt at a key, from the question to the guard.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::task::{Context, Poll, Waker};

use lock_core::{Mode, OwnerToken, Ticket, block_on, fork};
use tokio::task::coop;

use super::guard::Hold;
use super::{KeyGuard, KeyOptions, KeyedLocks};
use crate::Fairness;
use crate::table::{
    Ask, Attempt, Claim, Entered, Glimpse, Held, LAST_NUMBER, Manner, Pass, Refused, Sought, Table,
};

/// How often a thread looks again before it parks, after twice as long each time: in all about as
/// long as a switch of threads takes.
const LOOKS: u32 = 7;

/// One attempt from the question to the guard. Dropping it ends the attempt, in any state.
pub(super) struct Asking<'a, 'k, K: Send, Q: ?Sized, S, O>
where
    K: Borrow<Q>,
    Q: Eq,
{
    pub(super) locks: &'a KeyedLocks<K, S>,
    pub(super) key: &'k Q,
    pub(super) options: O,
    /// `None` until it has queued, and again once it has answered.
    pub(super) queued: Option<Queued<'a, K>>,
}

/// Exclusive, with the usual priority. Takes no space in a future, of which there may be many.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl From<Plain> for KeyOptions {
    #[inline]
    fn from(_: Plain) -> Self {
        Self::default()
    }
}

pub(super) struct Queued<'a, K: Send> {
    table: &'a Table<K, ()>,
    hash: u64,
    attempt: Attempt,
    ticket: Option<Ticket>,
    /// The fork generation it queued in.
    generation: u64,
}

impl<'a, 'k, K, Q, S, O> Asking<'a, 'k, K, Q, S, O>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
    O: Copy + Into<KeyOptions>,
{
    #[inline]
    pub(super) fn new(locks: &'a KeyedLocks<K, S>, key: &'k Q, options: O) -> Self {
        Self {
            locks,
            key,
            options,
            queued: None,
        }
    }

    /// One attempt.
    #[inline]
    pub(super) fn try_now(&self) -> Option<KeyGuard<'a, K>> {
        let (table, hash) = (self.locks.table(), self.hash());
        match hold_alone(table, hash, self.key, Manner::EXCLUSIVE) {
            Some(number) => Some(KeyGuard::new(table, Hold::exclusive(hash, number))),
            None => self.try_crowded(table, hash),
        }
    }

    /// One attempt, for a key that somebody is near.
    #[cold]
    #[inline(never)]
    fn try_crowded(&self, table: &'a Table<K, ()>, hash: u64) -> Option<KeyGuard<'a, K>> {
        self.enter_now(table, hash)
    }

    /// The same within an acquire: inlined, so that the guard is made where it stays.
    #[inline(always)]
    fn enter_now(&self, table: &'a Table<K, ()>, hash: u64) -> Option<KeyGuard<'a, K>> {
        let ask = Ask {
            hash,
            mode: Mode::Exclusive,
            priority: self.options.into().priority,
            attempt: OwnerToken::mint().counter(),
            fairness: self.locks.threads,
            waker: None,
        };
        match table.enter(&ask, self, ()) {
            Ok(Entered::Holds(pass)) => self.guard(table, hash, pass),
            Ok(Entered::Contended | Entered::Waits(_)) | Err(_) => None,
        }
    }

    /// Waits on this thread, for a key that somebody is near.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_crowded(
        mut self,
        table: &'a Table<K, ()>,
        hash: u64,
    ) -> Result<KeyGuard<'a, K>, Refused> {
        // Then there is no need to get ready to park.
        if self.options.into().mode == Mode::Exclusive
            && table.is_beside_another(hash)
            && let Some(guard) = self.enter_now(table, hash)
        {
            return Ok(guard);
        }
        let may_barge =
            self.locks.threads == Fairness::Barging && self.options.into().mode == Mode::Exclusive;
        if may_barge
            && let Some(number) = spin(table, hash, || {
                hold_alone(table, hash, self.key, Manner::EXCLUSIVE)
            })
        {
            return Ok(KeyGuard::new(table, Hold::exclusive(hash, number)));
        }
        block_on(std::future::poll_fn(|context| {
            if self.queued.is_none() {
                return self.enter_or_queue(table, hash, self.locks.threads, context.waker());
            }
            if may_barge {
                // It was called. Somebody may have barged, and may be gone in a moment.
                spin(table, hash, || Some(()));
            }
            self.poll_queued(context.waker())
        }))
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<KeyGuard<'a, K>, Refused>> {
        if self.queued.is_some() {
            return self.poll_queued(context.waker());
        }
        let budget = std::task::ready!(coop::poll_proceed(context));
        let (table, hash) = (self.locks.table(), self.hash());
        let outcome = match self.hold_slot(table, hash) {
            Some(guard) => Poll::Ready(Ok(guard)),
            None => self.enter_or_queue(table, hash, self.locks.tasks, context.waker()),
        };
        if outcome.is_ready() {
            budget.made_progress();
        }
        outcome
    }

    /// Takes the slot in any mode that it knows, if nobody is near. Whoever is below the usual
    /// priority may not, for a waiter that was called may be on its way.
    #[inline(always)]
    pub(super) fn hold_slot(&self, table: &'a Table<K, ()>, hash: u64) -> Option<KeyGuard<'a, K>> {
        let KeyOptions { mode, priority } = self.options.into();
        let manner = Manner::of(mode).filter(|_| priority >= 0)?;
        let number = hold_alone(table, hash, self.key, manner)?;
        let hold = Hold::of(hash, Pass::alone(number, mode));
        Some(KeyGuard::new(table, hold))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn enter_or_queue(
        &mut self,
        table: &'a Table<K, ()>,
        hash: u64,
        fairness: Fairness,
        waker: &Waker,
    ) -> Poll<Result<KeyGuard<'a, K>, Refused>> {
        let attempt = OwnerToken::mint().counter();
        let ask = self.ask(hash, attempt, fairness, Some(waker));
        match table.enter(&ask, self, ())? {
            Entered::Holds(pass) => {
                let guard = self.guard(table, hash, pass);
                guard.map_or(Poll::Pending, |guard| Poll::Ready(Ok(guard)))
            }
            Entered::Contended => Poll::Pending,
            Entered::Waits(ticket) => {
                self.queued = Some(Queued {
                    table,
                    hash,
                    attempt,
                    ticket,
                    generation: fork::generation(),
                });
                Poll::Pending
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn poll_queued(&mut self, waker: &Waker) -> Poll<Result<KeyGuard<'a, K>, Refused>> {
        let Some(queued) = &self.queued else {
            return Poll::Pending;
        };
        if queued.generation != fork::generation() {
            return Poll::Pending;
        }
        let (table, hash) = (queued.table, queued.hash);
        let found = table.poll(
            hash,
            |kept| kept.borrow() == self.key,
            queued.attempt,
            waker,
        );
        match found {
            Some(Poll::Ready(pass)) => {
                self.queued = None;
                let guard = self.guard(table, hash, pass);
                guard.map_or(Poll::Pending, |guard| Poll::Ready(Ok(guard)))
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }

    fn ask<'w>(
        &self,
        hash: u64,
        attempt: Attempt,
        fairness: Fairness,
        waker: Option<&'w Waker>,
    ) -> Ask<'w> {
        Ask {
            hash,
            mode: self.options.into().mode,
            priority: self.options.into().priority,
            attempt,
            fairness,
            waker,
        }
    }

    /// The guard of a hold; waits for ever once 2^51 holds have used the numbers up, for a number
    /// that goes back would protect nothing.
    fn guard(&self, table: &'a Table<K, ()>, hash: u64, pass: Pass) -> Option<KeyGuard<'a, K>> {
        (pass.number <= LAST_NUMBER).then(|| KeyGuard::new(table, Hold::in_room(hash, pass)))
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.locks.hasher.hash_one(self.key)
    }
}

impl<K, Q, S, O> Sought<K> for Asking<'_, '_, K, Q, S, O>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    fn make(&self) -> K {
        self.key.to_owned()
    }

    fn is(&self, key: &K) -> bool {
        key.borrow() == self.key
    }

    fn hash_of(&self, key: &K) -> u64 {
        self.locks.hasher.hash_one(key.borrow())
    }

    fn are_same(&self, one: &K, other: &K) -> bool {
        one.borrow() == other.borrow()
    }
}

/// Takes the slot, if nobody is near, and says under which number.
#[inline]
pub(super) fn hold_alone<K, Q>(
    table: &Table<K, ()>,
    hash: u64,
    key: &Q,
    manner: Manner,
) -> Option<u64>
where
    K: Borrow<Q> + Send,
    Q: ToOwned<Owned = K> + ?Sized,
{
    table.try_hold(hash, None, manner, || Held {
        key: key.to_owned(),
        details: (),
    })
}

/// Looks for a while, as long as the holder seems to be alone, until the slot is free and `take`
/// takes it.
fn spin<K: Send, T>(table: &Table<K, ()>, hash: u64, take: impl Fn() -> Option<T>) -> Option<T> {
    for look in 0..LOOKS {
        match table.glimpse(hash) {
            Glimpse::Free => {
                if let Some(taken) = take() {
                    return Some(taken);
                }
            }
            Glimpse::Soon => {}
            Glimpse::Late => return None,
        }
        // Looking takes the slot's cache line from the holder, so not too often.
        (0..1 << look).for_each(|_| std::hint::spin_loop());
    }
    None
}

impl<K, Q, S, O> Drop for Asking<'_, '_, K, Q, S, O>
where
    K: Borrow<Q> + Send,
    Q: Eq + ?Sized,
{
    #[inline]
    fn drop(&mut self) {
        if let Some(queued) = self.queued.take() {
            queued.withdraw(self.key);
        }
    }
}

impl<K: Send> Queued<'_, K> {
    /// Ends the attempt, unless this process is a child that never made it.
    #[cold]
    #[inline(never)]
    fn withdraw<Q>(self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if self.generation == fork::generation() {
            let claim = Claim::Attempt(self.attempt, self.ticket);
            let same = |kept: &K| kept.borrow() == key;
            self.table.leave(self.hash, same, claim);
        }
    }
}

impl<K, Q, S, O> Asking<'_, '_, K, Q, S, O>
where
    K: Borrow<Q> + Send,
    Q: Eq + ?Sized,
{
    pub(super) fn stage(&self) -> &'static str {
        if self.queued.is_some() {
            "AcquireKey(queued)"
        } else {
            "AcquireKey(new)"
        }
    }
}
