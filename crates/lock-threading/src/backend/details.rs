//! What the backend keeps about a holder or waiter.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lock_core::{
    Fence, FencingNumber, KeyReport, LockKey, Mode, OwnerId, OwnerToken, PartyRecord, PlainRequest,
    ProcessNonce, ProcessRecord, Request, Slot, clock,
};

use crate::table::{Attempt, Details, Party, Pass, Queue};

/// What is kept about a holder or waiter, small enough to be written at every acquire.
#[derive(Debug)]
pub(crate) struct Known {
    attempt: Attempt,
    /// Through which [`OneKey`](crate::OneKey) it came; 0 for none.
    view: u64,
    owner: Option<OwnerId>,
    /// In nanoseconds of the wall clock.
    since: u64,
    words: Option<Box<Words>>,
}

/// What only some callers give.
#[derive(Debug)]
struct Words {
    label: Option<Arc<str>>,
    record: Option<Arc<[u8]>>,
}

impl Details for Known {
    const ASKS_AGAIN: bool = true;

    fn attempt(&self) -> Option<Attempt> {
        Some(self.attempt)
    }

    fn note_grant(&mut self) {
        self.since = clock::coarse_wall_nanos();
    }
}

impl Known {
    #[inline(always)]
    pub(crate) fn of(request: &Request, view: u64) -> Self {
        let has_words = request.label.is_some() || request.record.is_some();
        Self {
            attempt: request.attempt.counter(),
            view,
            owner: request.owner,
            since: clock::coarse_wall_nanos(),
            words: has_words.then(|| {
                Box::new(Words {
                    label: request.label.clone(),
                    record: request.record.clone(),
                })
            }),
        }
    }

    #[inline(always)]
    pub(crate) fn plain(request: &PlainRequest, view: u64) -> Self {
        Self {
            attempt: request.attempt.counter(),
            view,
            owner: request.owner,
            since: clock::coarse_wall_nanos(),
            words: None,
        }
    }

    pub(crate) fn set_owner(&mut self, owner: OwnerId) {
        self.owner = Some(owner);
    }

    pub(crate) fn set_view(&mut self, view: u64) {
        self.view = view;
    }

    pub(crate) fn came_through(&self, view: u64) -> bool {
        self.view == view
    }

    fn record(&self, mode: Mode, process: &ProcessRecord, number: u64) -> PartyRecord {
        let attempt = OwnerToken::from_parts(ProcessNonce::current(), self.attempt);
        let mut record = PartyRecord::new(attempt, mode, process.clone());
        record.owner = self.owner;
        if let Some(words) = &self.words {
            record.label = words.label.as_deref().map(str::to_owned);
            record.record = words.record.as_deref().map(<[u8]>::to_vec);
        }
        record.since = Some(UNIX_EPOCH + Duration::from_nanos(self.since));
        if mode == Mode::Exclusive && number != 0 {
            record.fencing = FencingNumber::from_base(number);
        }
        record
    }
}

/// What a hold shows to resources; `None` once the numbers are used up.
#[inline]
pub(crate) fn fence(pass: Pass) -> Option<Fence> {
    match pass.mode {
        Mode::Exclusive => FencingNumber::from_base(pass.number).map(Fence::Exclusive),
        Mode::Shared => Some(Fence::Shared(None)),
        Mode::Permit(_) => Some(Fence::Permit(Slot(pass.permit))),
    }
}

/// One key with a holder that is alone.
pub(crate) fn report_alone(
    key: LockKey,
    known: &Known,
    pass: Pass,
    process: &ProcessRecord,
) -> KeyReport {
    let mut report = KeyReport::idle(key);
    let record = known.record(pass.mode, process, pass.number);
    report.holders.push(record);
    report
}

/// One key with its holders and waiters.
pub(crate) fn report_queue(
    key: LockKey,
    queue: &Queue<Known>,
    process: &ProcessRecord,
) -> KeyReport {
    let record = |party: &Party<Known>| {
        let seat = &party.data;
        let mut record = seat.details.record(party.mode, process, seat.number());
        record.priority = party.priority;
        record
    };
    let mut report = KeyReport::idle(key);
    report.holders = queue.holders().map(record).collect();
    report.waiters = queue.waiters().map(record).collect();
    report
}
