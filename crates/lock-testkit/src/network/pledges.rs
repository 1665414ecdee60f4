//! What this client has asked for, holds, or still owes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Grant, LockKey, OwnerToken, Request};

use super::backend::Listener;

/// Attempts by token. Invariant: an attempt is in at most one of `pending`, `held` and `debts`, and
/// one that was sent to the server leaves them only when the server has confirmed its end.
#[derive(Debug, Default)]
pub(super) struct Pledges {
    pub(super) pending: HashMap<OwnerToken, Pending>,
    pub(super) held: HashMap<OwnerToken, Held>,
    debts: HashMap<OwnerToken, Debt>,
    ended: Ended,
    count: Arc<DebtCount>,
}

/// An attempt without an answer for good.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: LockKey,
    pub(super) request: Request,
    pub(super) ttl: Duration,
    /// Gone when the caller's future is dropped; the attempt goes on.
    pub(super) listener: Listener<Option<Grant>>,
    /// Whether the server may know of it.
    pub(super) sent: bool,
    /// When to ask (again), in case a request, reply or push was lost.
    pub(super) ask_at: Instant,
    /// When to answer that the server cannot be reached, for one that must not wait.
    pub(super) give_up: Option<Instant>,
    /// Answers to calls before this one are out of date.
    pub(super) heed_from: u64,
}

/// A lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: LockKey,
    pub(super) grant: Grant,
}

#[derive(Debug)]
struct Debt {
    key: LockKey,
    /// When to send the cancel (again).
    due: Instant,
}

impl Pledges {
    pub(super) fn counted_in(count: Arc<DebtCount>) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// Ends an attempt for this client; what the server may know of becomes a debt.
    pub(super) fn abandon(&mut self, key: LockKey, attempt: OwnerToken) {
        self.ended.insert(attempt);
        self.held.remove(&attempt);
        let unsent = self
            .pending
            .remove(&attempt)
            .is_some_and(|pending| !pending.sent);
        if !unsent {
            let due = Instant::now();
            self.debts.entry(attempt).or_insert(Debt { key, due });
        }
        self.recount();
    }

    /// Remembers that an attempt is over, so that nothing of it is heeded.
    pub(super) fn end(&mut self, attempt: OwnerToken) {
        self.ended.insert(attempt);
    }

    /// Whether an attempt is over for this client.
    pub(super) fn has_ended(&self, attempt: OwnerToken) -> bool {
        self.ended.seen.contains(&attempt)
    }

    /// The cancels to send now; each comes again after `pause` unless it is paid.
    pub(super) fn debts_due(&mut self, pause: Duration) -> Vec<(LockKey, OwnerToken)> {
        let mut due = Vec::new();
        for (attempt, debt) in &mut self.debts {
            if debt.due.has_passed() {
                debt.due = Instant::now() + pause;
                due.push((debt.key.clone(), *attempt));
            }
        }
        due
    }

    /// Makes every debt due, after a reconnect.
    pub(super) fn press_debts(&mut self) {
        for debt in self.debts.values_mut() {
            debt.due = Instant::now();
        }
    }

    pub(super) fn paid(&mut self, attempt: OwnerToken) {
        self.debts.remove(&attempt);
        self.recount();
    }

    pub(super) fn debts(&self) -> impl Iterator<Item = (&LockKey, OwnerToken)> {
        self.debts
            .iter()
            .map(|(attempt, debt)| (&debt.key, *attempt))
    }

    pub(super) fn has_debts(&self) -> bool {
        !self.debts.is_empty()
    }

    fn recount(&self) {
        self.count.unpaid.store(self.debts.len(), Ordering::Release);
    }
}

/// How many abandoned attempts there are, for whoever asks from outside.
#[derive(Debug, Default)]
pub(super) struct DebtCount {
    /// Abandoned, but the driver has not heard of it.
    unheard: AtomicUsize,
    unpaid: AtomicUsize,
}

impl DebtCount {
    pub(super) fn abandoned(&self) {
        self.unheard.fetch_add(1, Ordering::AcqRel);
    }

    /// To be called once the debts have been counted anew.
    pub(super) fn heard(&self) {
        self.unheard.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> usize {
        // In this order, so that a debt on its way from one count to the other is seen.
        let unheard = self.unheard.load(Ordering::Acquire);
        unheard + self.unpaid.load(Ordering::Acquire)
    }
}

/// The attempts that ended last: asking under one of them again must not be granted.
#[derive(Debug, Default)]
struct Ended {
    seen: HashSet<OwnerToken>,
    order: VecDeque<OwnerToken>,
}

impl Ended {
    const REMEMBERED: usize = 4096;

    fn insert(&mut self, attempt: OwnerToken) {
        if !self.seen.insert(attempt) {
            return;
        }
        self.order.push_back(attempt);
        if self.order.len() > Self::REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}
