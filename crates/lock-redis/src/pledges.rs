//! What this process has asked for, holds, or still owes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Grant, LockKey, OwnerToken, Request};

use crate::backend::Listener;
use crate::names::Names;

/// Attempts by token. Invariant: an attempt is in at most one of `pending`, `held` and `debts`, and
/// one that was sent to the server leaves them only when the server has confirmed its end.
#[derive(Debug, Default)]
pub(crate) struct Pledges {
    pub(crate) pending: HashMap<OwnerToken, Pending>,
    pub(crate) held: HashMap<OwnerToken, Held>,
    debts: HashMap<OwnerToken, Debt>,
    ended: Ended,
    count: Arc<DebtCount>,
}

/// An attempt without an answer for good.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) key: LockKey,
    pub(crate) names: Names,
    pub(crate) request: Request,
    /// Its line in the store.
    pub(crate) line: String,
    pub(crate) lease: Duration,
    /// Gone when the caller's future is dropped; the attempt goes on.
    pub(crate) listener: Listener<Option<Grant>>,
    /// The connection that it was sent over last.
    pub(crate) sent_over: Option<u64>,
    /// Whether a request of it may still be on its way over an earlier connection.
    pub(crate) astray: bool,
    /// Whether it stands in the server's queue, and since when by the server's clock.
    pub(crate) arrival: Option<u64>,
    /// When to answer that the server cannot be reached, for one that must not wait.
    pub(crate) give_up: Option<Instant>,
    /// A grant that waits for the replicas to have it.
    pub(crate) unconfirmed: Option<Grant>,
}

/// A lease.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: LockKey,
    pub(crate) names: Names,
    pub(crate) grant: Grant,
    /// Its entry in the stream, if the server had it for a brief holder when it was last heard of.
    pub(crate) brief: Option<String>,
    /// Whether an acquire of it may still be on its way over an earlier connection.
    pub(crate) astray: bool,
}

/// An attempt that was given up, until the server confirms its end.
#[derive(Debug)]
pub(crate) struct Debt {
    pub(crate) key: LockKey,
    pub(crate) names: Names,
    pub(crate) line: String,
    /// The connection that an acquire of it was sent over last.
    sent_over: Option<u64>,
    astray: bool,
    /// Its entry in the stream, if it may be ended as a brief holder.
    brief: Option<String>,
    /// When to send the cancel (again).
    due: Instant,
}

impl Debt {
    /// Its entry in the stream, if it may be ended as a brief holder, which is tried once.
    pub(crate) fn take_brief(&mut self) -> Option<String> {
        self.brief.take()
    }

    /// Whether an acquire may still come after a cancel over this connection.
    pub(crate) fn may_be_late(&self, link: u64) -> bool {
        self.astray || self.sent_over.is_some_and(|sent_over| sent_over != link)
    }
}

impl Pledges {
    pub(crate) fn counted_in(count: Arc<DebtCount>) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// Ends an attempt for this process; what the server may know of becomes a debt. Returns the
    /// pending one, if it was.
    pub(crate) fn abandon(
        &mut self,
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
    ) -> Option<Pending> {
        self.ended.insert(attempt);
        let held = self.held.remove(&attempt);
        let pending = self.pending.remove(&attempt);
        let known = pending
            .as_ref()
            .is_none_or(|pending| pending.sent_over.is_some());
        if known {
            let astray = pending.as_ref().is_some_and(|pending| pending.astray)
                || held.as_ref().is_some_and(|held| held.astray);
            let brief = held.and_then(|held| held.brief);
            self.debts.entry(attempt).or_insert_with(|| Debt {
                key,
                names,
                line: pending
                    .as_ref()
                    .map_or_else(String::new, |pending| pending.line.clone()),
                sent_over: pending.as_ref().and_then(|pending| pending.sent_over),
                astray,
                brief,
                due: Instant::now(),
            });
        }
        self.recount();
        pending
    }

    /// Remembers that an attempt is over, so that nothing of it is heeded.
    pub(crate) fn end(&mut self, attempt: OwnerToken) {
        self.ended.insert(attempt);
    }

    /// Whether an attempt is over for this process.
    pub(crate) fn has_ended(&self, attempt: OwnerToken) -> bool {
        self.ended.seen.contains(&attempt)
    }

    pub(crate) fn owes(&self, attempt: OwnerToken) -> bool {
        self.debts.contains_key(&attempt)
    }

    pub(crate) fn debt_mut(&mut self, attempt: OwnerToken) -> Option<&mut Debt> {
        self.debts.get_mut(&attempt)
    }

    pub(crate) fn debt(&self, attempt: OwnerToken) -> Option<&Debt> {
        self.debts.get(&attempt)
    }

    /// The debts to pay now; each comes again after `pause` unless it is paid.
    pub(crate) fn debts_due(&mut self, pause: Duration) -> Vec<OwnerToken> {
        let now = Instant::now();
        let due = self.debts.iter_mut().filter(|(_, debt)| debt.due <= now);
        due.map(|(attempt, debt)| {
            debt.due = now + pause;
            *attempt
        })
        .collect()
    }

    /// Lets a debt be paid again after `pause`.
    pub(crate) fn press(&mut self, attempt: OwnerToken, pause: Duration) {
        if let Some(debt) = self.debts.get_mut(&attempt) {
            debt.due = Instant::now() + pause;
        }
    }

    pub(crate) fn paid(&mut self, attempt: OwnerToken) {
        self.debts.remove(&attempt);
        self.recount();
    }

    pub(crate) fn debts(&self) -> impl Iterator<Item = (&LockKey, OwnerToken)> {
        self.debts
            .iter()
            .map(|(attempt, debt)| (&debt.key, *attempt))
    }

    pub(crate) fn has_debts(&self) -> bool {
        !self.debts.is_empty()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.held.is_empty() && self.debts.is_empty()
    }

    fn recount(&self) {
        self.count.unpaid.store(self.debts.len(), Ordering::Release);
    }
}

/// How many abandoned attempts there are, for whoever asks from outside.
#[derive(Debug, Default)]
pub(crate) struct DebtCount {
    /// Abandoned, but the driver has not heard of it.
    unheard: AtomicUsize,
    unpaid: AtomicUsize,
}

impl DebtCount {
    pub(crate) fn abandoned(&self) {
        self.unheard.fetch_add(1, Ordering::AcqRel);
    }

    /// To be called once the debts have been counted anew.
    pub(crate) fn heard(&self) {
        self.unheard.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn get(&self) -> usize {
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
