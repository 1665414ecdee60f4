//! Who enters next, and the transactions that make it so.
//!
//! Invariant: a grant is made only if no holder was written since the line was read, and if whoever
//! is granted still waits. Deletions are not checked: a line with somebody too many grants less,
//! never more, and whoever waits looks again when the deletion is told.

use lock_core::{Mode, OwnerToken, Request};

use super::{Line, Party, Room};
use crate::record::Record;
use crate::wire::{Compare, Operation, TxnRequest};

/// At most so many enter in one step: a transaction may have 128 operations.
const AT_ONCE: usize = 16;
/// Of so many ranks the oldest waiter counts who overtakes it, for the same reason.
const RANKS: usize = 64;

/// The waiters that enter next, with the permits of each.
#[derive(Debug)]
pub(crate) struct Grants<'a> {
    line: &'a Line,
    leaving: Option<&'a Party>,
    chosen: Vec<(&'a Party, Vec<u32>)>,
}

/// A transaction that lets waiters in, and who they are, with the permits of each.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) txn: TxnRequest,
    pub(crate) lets_in: Vec<(OwnerToken, Vec<u32>)>,
}

/// A holder, by what proves that it still is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) attempt: OwnerToken,
    pub(crate) mode: Mode,
    pub(crate) created: i64,
}

/// Somebody who enters without having waited.
#[derive(Clone, Debug)]
pub(crate) struct Entrant {
    pub(crate) attempt: OwnerToken,
    pub(crate) mode: Mode,
    pub(crate) priority: i8,
    pub(crate) lease: i64,
    pub(crate) record: Record,
}

impl Line {
    /// The waiters at the head for whom there is room, or will be once `leaving` has left.
    pub(crate) fn next(&self, leaving: Option<&'_ Party>) -> Grants<'_> {
        let leaving = leaving.and_then(|party| self.holder(party.attempt));
        let mut room = self.room(leaving.map(|party| party.attempt));
        let mut chosen = Vec::new();
        for waiter in self.waiters() {
            let Some(slots) = room.admits(waiter.mode) else {
                break;
            };
            if chosen.len() == AT_ONCE {
                break;
            }
            room.enter(waiter.mode, &slots);
            chosen.push((waiter, slots));
        }
        Grants {
            line: self,
            leaving,
            chosen,
        }
    }

    /// How a holder leaves and whom it lets in; `None` when it is not in the line.
    pub(crate) fn leave(&self, holder: &Stand) -> Option<Plan> {
        let party = self.holder(holder.attempt)?;
        (party.created == holder.created).then(|| self.next(Some(party)).plan())
    }

    /// The permits for a newcomer if it may enter now; `None` if it has to wait.
    pub(crate) fn admits(&self, mode: Mode, priority: i8) -> Option<Vec<u32>> {
        let head = self.waiters().next();
        let overtakes_nobody = head.is_none_or(|head| i16::from(priority) > head.rank());
        let room = self.room(None);
        overtakes_nobody.then(|| room.admits(mode)).flatten()
    }

    /// Lets a newcomer in; to be asked only right after [`admits`](Self::admits).
    pub(crate) fn enter(&self, entrant: &Entrant, slots: Vec<u32>) -> TxnRequest {
        let mut txn = TxnRequest::default();
        txn.compare.push(Compare::unwritten_since(
            &self.place.holders(),
            self.revision,
        ));
        txn.compare.push(Compare::unwritten_since(
            &self.place.waiters(),
            self.revision,
        ));
        let newcomer = (i16::from(entrant.priority), i64::MAX);
        self.count_bypassed(&[newcomer], &[], &mut txn);
        txn.success.push(entrant.put(&self.place, slots));
        txn
    }

    /// Counts, for the oldest waiter of each lower rank, who overtakes it.
    fn count_bypassed(
        &self,
        granted: &[(i16, i64)],
        leaving_line: &[OwnerToken],
        txn: &mut TxnRequest,
    ) {
        let (mut rank, mut ranks) = (i16::MAX, 0);
        for waiter in self.waiters() {
            if ranks == RANKS {
                break;
            }
            if leaving_line.contains(&waiter.attempt) || waiter.rank() == rank {
                continue;
            }
            // The first of its rank, and so the oldest.
            rank = waiter.rank();
            ranks += 1;
            let overtook = |(of, arrived): &&(i16, i64)| *of > rank && *arrived > waiter.created;
            let times = granted.iter().filter(overtook).count();
            if times == 0 {
                continue;
            }
            let key = self
                .place
                .waiter(waiter.mode, waiter.priority, waiter.attempt);
            let mut record = waiter.record.clone();
            record.bypassed += u32::try_from(times).unwrap_or(u32::MAX);
            // It must be there, or this would put a dead waiter back.
            txn.compare
                .push(Compare::created_at(key.clone(), waiter.created));
            txn.success
                .push(Operation::put(key, record.to_bytes(), waiter.lease));
        }
    }
}

impl Grants<'_> {
    /// Keeps those for whom `keep` says so; the room of the others stays reserved.
    pub(crate) fn only(mut self, keep: impl Fn(OwnerToken) -> bool) -> Self {
        self.chosen.retain(|(party, _)| keep(party.attempt));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    fn attempts(&self) -> Vec<OwnerToken> {
        self.chosen.iter().map(|(party, _)| party.attempt).collect()
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            txn: self.txn(),
            lets_in: self
                .chosen
                .iter()
                .map(|(party, slots)| (party.attempt, slots.clone()))
                .collect(),
        }
    }

    /// Takes the leaving one out and lets the chosen ones in, in one step.
    fn txn(&self) -> TxnRequest {
        let (line, place) = (self.line, &self.line.place);
        let mut txn = TxnRequest::default();
        if let Some(leaving) = self.leaving {
            let key = place.holder(leaving.mode, leaving.attempt);
            txn.compare
                .push(Compare::created_at(key.clone(), leaving.created));
            txn.success.push(Operation::delete(key));
        }
        if let Some((last, _)) = self.chosen.last() {
            txn.compare
                .push(Compare::unwritten_since(&place.holders(), line.holders_at));
            // An aged one goes before everybody, so nobody who came since can be before it.
            if last.rank() <= i16::from(i8::MAX) {
                for span in place.waiters_above(last.priority, line.permits_of()) {
                    txn.compare
                        .push(Compare::unwritten_since(&span, line.revision));
                }
            }
        }
        for (party, slots) in &self.chosen {
            let waiter = place.waiter(party.mode, party.priority, party.attempt);
            txn.compare
                .push(Compare::created_at(waiter.clone(), party.created));
            txn.success.push(Operation::delete(waiter));
            let holder = place.holder(party.mode, party.attempt);
            let record = party.record.holding(slots.clone()).to_bytes();
            txn.success
                .push(Operation::put(holder, record, party.lease));
        }
        let granted: Vec<_> = self
            .chosen
            .iter()
            .map(|(party, _)| (party.rank(), party.created))
            .collect();
        line.count_bypassed(&granted, &self.attempts(), &mut txn);
        txn.failure.push(Operation::read(&place.all()));
        txn
    }
}

impl Entrant {
    pub(crate) fn new(request: &Request, lease: i64, record: Record) -> Self {
        Self {
            attempt: request.attempt,
            mode: request.mode,
            priority: request.priority,
            lease,
            record,
        }
    }

    pub(crate) fn put(&self, place: &crate::layout::Place, slots: Vec<u32>) -> Operation {
        let key = place.holder(self.mode, self.attempt);
        Operation::put(key, self.record.holding(slots).to_bytes(), self.lease)
    }
}

impl Line {
    /// The permits for one who enters a key that nobody uses.
    pub(crate) fn first_slots(mode: Mode) -> Vec<u32> {
        Room::default().admits(mode).unwrap_or_default()
    }
}
