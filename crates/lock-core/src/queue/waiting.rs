//! The waiters of one key, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::{BYPASS_LIMIT, Party};
use crate::{Mode, OwnerToken};

/// Above every priority: where waiters go that were bypassed too often.
const AGED: i16 = i8::MAX as i16 + 1;

/// Higher rank first, then first come. The arrival number is also the tie breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    rank: Reverse<i16>,
    arrival: u64,
}

#[derive(Clone, Debug)]
struct Waiter<T> {
    party: Party<T>,
    bypassed: u32,
}

#[derive(Clone)]
pub(super) struct Waiting<T> {
    line: BTreeMap<Ticket, Waiter<T>>,
    tickets: HashMap<OwnerToken, Ticket>,
    arrivals: u64,
    /// How many waiters ask for [`Mode::Shared`], and for permits, and of how many.
    shared: usize,
    permits: usize,
    of: Option<Mode>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            line: BTreeMap::new(),
            tickets: HashMap::new(),
            arrivals: 0,
            shared: 0,
            permits: 0,
            of: None,
        }
    }
}

impl<T> Waiting<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Party<T>> {
        self.line.values().map(|waiter| &waiter.party)
    }

    pub(super) fn into_parties(self) -> impl Iterator<Item = Party<T>> {
        self.line.into_values().map(|waiter| waiter.party)
    }

    pub(super) fn head_mut(&mut self) -> Option<&mut Party<T>> {
        self.line
            .first_entry()
            .map(|entry| &mut entry.into_mut().party)
    }

    pub(super) fn get(&self, attempt: OwnerToken) -> Option<&Party<T>> {
        let ticket = self.tickets.get(&attempt)?;
        self.line.get(ticket).map(|waiter| &waiter.party)
    }

    /// Whether a newcomer of this priority goes before everyone here.
    pub(super) fn yields_to(&self, priority: i8) -> bool {
        self.line
            .first_key_value()
            .is_none_or(|(head, _)| i16::from(priority) > head.rank.0)
    }

    /// A mode that is waited for and can never take turns with `mode`.
    pub(super) fn conflict(&self, mode: Mode) -> Option<Mode> {
        let shared = (self.shared > 0).then_some(Mode::Shared);
        let permit = self.of.filter(|_| self.permits > 0);
        [shared, permit]
            .into_iter()
            .flatten()
            .find(|other| other.conflicts_with(mode))
    }

    pub(super) fn push(&mut self, party: Party<T>) {
        let ticket = Ticket {
            rank: Reverse(party.priority.into()),
            arrival: self.arrivals,
        };
        self.arrivals += 1;
        self.count_mode(party.mode, true);
        self.tickets.insert(party.attempt, ticket);
        self.line.insert(ticket, Waiter { party, bypassed: 0 });
    }

    pub(super) fn remove(&mut self, attempt: OwnerToken) -> Option<Party<T>> {
        let ticket = self.tickets.remove(&attempt)?;
        let waiter = self.line.remove(&ticket)?;
        self.count_mode(waiter.party.mode, false);
        Some(waiter.party)
    }

    /// Takes the head out, to be granted.
    pub(super) fn pop(&mut self) -> Option<Party<T>> {
        let (ticket, waiter) = self.line.pop_first()?;
        self.tickets.remove(&waiter.party.attempt);
        self.count_mode(waiter.party.mode, false);
        self.count_bypass(ticket);
        Some(waiter.party)
    }

    /// A newcomer was granted before everyone of lower rank.
    pub(super) fn count_newcomer(&mut self, priority: i8) {
        self.count_bypass(Ticket {
            rank: Reverse(priority.into()),
            arrival: u64::MAX,
        });
    }

    /// The oldest waiter of each lower rank was bypassed, if it came before the granted one.
    fn count_bypass(&mut self, granted: Ticket) {
        let mut rank = granted.rank;
        loop {
            // Past every ticket of this rank, to the oldest waiter of the next lower one.
            let past = Ticket {
                rank,
                arrival: u64::MAX,
            };
            let Some((&ticket, waiter)) = self
                .line
                .range_mut((std::ops::Bound::Excluded(past), std::ops::Bound::Unbounded))
                .next()
            else {
                return;
            };
            rank = ticket.rank;
            if ticket.arrival < granted.arrival {
                waiter.bypassed += 1;
                if waiter.bypassed >= BYPASS_LIMIT {
                    self.age(ticket);
                }
            }
        }
    }

    fn age(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.line.remove(&ticket) {
            let aged = Ticket {
                rank: Reverse(AGED),
                ..ticket
            };
            self.tickets.insert(waiter.party.attempt, aged);
            self.line.insert(aged, waiter);
        }
    }

    fn count_mode(&mut self, mode: Mode, comes: bool) {
        let count = match mode {
            Mode::Exclusive => return,
            Mode::Shared => &mut self.shared,
            Mode::Permit(_) => {
                self.of = Some(mode);
                &mut self.permits
            }
        };
        *count = if comes { *count + 1 } else { *count - 1 };
    }
}
