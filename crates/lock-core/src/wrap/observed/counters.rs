//! Counting events.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Event, EventKind, Observer};

/// An [`Observer`] that counts. Reading it takes no lock; counts trail the events by moments.
#[derive(Debug, Default)]
pub struct Counters {
    attempts: AtomicU64,
    acquired: AtomicU64,
    contended: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
    released: AtomicU64,
    lost: AtomicU64,
    detached: AtomicU64,
    attached: AtomicU64,
    waited: AtomicU64,
    waits_over: AtomicU64,
}

/// What [`Counters`] have counted.
///
/// At rest, `attempts` is the sum of `acquired`, `contended`, `failed`, `abandoned` and those still
/// in the works; `acquired + attached` is the sum of `released`, `lost`, `detached` and `holders`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// Acquires asked for.
    pub attempts: u64,
    /// Acquires granted.
    pub acquired: u64,
    /// Attempts without waiting that found another holder.
    pub contended: u64,
    /// Acquires that failed.
    pub failed: u64,
    /// Acquires given up: cancelled or timed out.
    pub abandoned: u64,
    /// Holds that ended well.
    pub released: u64,
    /// Holds that were lost, each counted once.
    pub lost: u64,
    /// Locks separated from their guards.
    pub detached: u64,
    /// Detached locks taken over.
    pub attached: u64,
    /// Holds now.
    pub holders: u64,
    /// Acquires now that were not answered at once.
    pub waiters: u64,
}

impl Counters {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts now. Each is exact; those of a moment in which locks are in use may not add up.
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        // Ends before beginnings, so that no gauge reads below zero.
        let (released, lost) = (read(&self.released), read(&self.lost));
        let (detached, waits_over) = (read(&self.detached), read(&self.waits_over));
        let (acquired, attached) = (read(&self.acquired), read(&self.attached));
        CountersSnapshot {
            attempts: read(&self.attempts),
            acquired,
            contended: read(&self.contended),
            failed: read(&self.failed),
            abandoned: read(&self.abandoned),
            released,
            lost,
            detached,
            attached,
            holders: (acquired + attached).saturating_sub(released + lost + detached),
            waiters: read(&self.waited).saturating_sub(waits_over),
        }
    }
}

impl Observer for Counters {
    fn observe(&self, event: &Event<'_>) {
        let wait_is_over = match event.kind {
            EventKind::Acquired { waited }
            | EventKind::Contended { waited }
            | EventKind::Failed { waited, .. } => waited.is_some(),
            EventKind::Abandoned { .. } => true,
            _ => false,
        };
        if wait_is_over {
            self.waits_over.fetch_add(1, Ordering::AcqRel);
        }
        let count = match event.kind {
            EventKind::Attempted => &self.attempts,
            EventKind::Waiting => &self.waited,
            EventKind::Acquired { .. } => &self.acquired,
            EventKind::Contended { .. } => &self.contended,
            EventKind::Failed { .. } => &self.failed,
            EventKind::Abandoned { .. } => &self.abandoned,
            EventKind::Released { .. } => &self.released,
            EventKind::Lost { .. } => &self.lost,
            EventKind::Detached { .. } => &self.detached,
            EventKind::Attached => &self.attached,
            EventKind::Downgraded => return,
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
}
