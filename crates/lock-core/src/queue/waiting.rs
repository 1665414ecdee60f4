//! The waiters of one key, in order.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::lane::Lane;
use super::{BYPASS_LIMIT, Party};
use crate::Mode;

/// Above every priority: where waiters go that were bypassed too often.
const AGED: i16 = i8::MAX as i16 + 1;

/// Where a waiter was put in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    rank: i16,
    arrival: u64,
}

type Tickets<A> = HashMap<A, Ticket, RandomState>;

/// One lane for each priority that is waited with.
#[derive(Clone)]
pub(super) struct Waiting<T, A> {
    /// Highest rank first; a lane that is empty is gone. Mostly there is one.
    lanes: SmallVec<[Lane<Party<T, A>>; 1]>,
    /// Made when a waiter is first asked for by its attempt: who only ever waits for the front of
    /// the line does not pay for it.
    tickets: Option<Tickets<A>>,
    arrivals: u64,
    /// How many waiters ask for [`Mode::Shared`], and for permits, and of how many.
    shared: usize,
    permits: usize,
    of: Option<Mode>,
}

impl<T, A> Default for Waiting<T, A> {
    fn default() -> Self {
        Self {
            lanes: SmallVec::new(),
            tickets: None,
            arrivals: 0,
            shared: 0,
            permits: 0,
            of: None,
        }
    }
}

impl<T, A: Copy + Eq + Hash> Waiting<T, A> {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Party<T, A>> {
        self.lanes.iter().flat_map(Lane::parties)
    }

    pub(super) fn into_parties(self) -> impl Iterator<Item = Party<T, A>> {
        self.lanes.into_iter().flat_map(Lane::into_parties)
    }

    #[inline]
    pub(super) fn head(&self) -> Option<&Party<T, A>> {
        self.lanes.first()?.first()
    }

    pub(super) fn head_mut(&mut self) -> Option<&mut Party<T, A>> {
        self.lanes.first_mut()?.first_mut()
    }

    pub(super) fn get(&mut self, attempt: A) -> Option<&Party<T, A>> {
        let ticket = self.ticket(attempt)?;
        self.lane(ticket.rank)?.get(ticket.arrival)
    }

    pub(super) fn get_mut(&mut self, attempt: A) -> Option<&mut Party<T, A>> {
        let ticket = self.ticket(attempt)?;
        let at = self.lane_at(ticket.rank).ok()?;
        self.lanes[at].get_mut(ticket.arrival)
    }

    /// Whether a newcomer of this priority goes before everyone here.
    pub(super) fn yields_to(&self, priority: i8) -> bool {
        let head = self.lanes.first();
        head.is_none_or(|head| i16::from(priority) > head.rank)
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

    #[inline]
    pub(super) fn push(&mut self, party: Party<T, A>) -> Ticket {
        let ticket = Ticket {
            rank: party.priority.into(),
            arrival: self.arrivals,
        };
        self.arrivals += 1;
        self.count_mode(party.mode, true);
        self.insert(ticket, party);
        ticket
    }

    pub(super) fn remove(&mut self, attempt: A) -> Option<Party<T, A>> {
        let ticket = self.tickets().remove(&attempt)?;
        self.take(ticket)
    }

    /// The same for one that was put in line there, unless it was moved to another lane.
    pub(super) fn remove_at(&mut self, ticket: Ticket, attempt: A) -> Option<Party<T, A>> {
        let found = self.lane(ticket.rank)?.get(ticket.arrival)?;
        if found.attempt != attempt {
            return None;
        }
        if let Some(tickets) = &mut self.tickets {
            tickets.remove(&attempt);
        }
        self.take(ticket)
    }

    fn take(&mut self, ticket: Ticket) -> Option<Party<T, A>> {
        let at = self.lane_at(ticket.rank).ok()?;
        let party = self.lanes[at].remove(ticket.arrival)?;
        self.forget_empty_lane(at);
        self.count_mode(party.mode, false);
        Some(party)
    }

    /// Takes the head out, to be granted.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Party<T, A>> {
        let first = self.lanes.first_mut()?;
        let rank = first.rank;
        let (arrival, party) = first.pop()?;
        self.forget(0, &party);
        self.count_mode(party.mode, false);
        self.count_bypass(Ticket { rank, arrival });
        Some(party)
    }

    /// A newcomer was granted before everyone of lower rank.
    pub(super) fn count_newcomer(&mut self, priority: i8) {
        self.count_bypass(Ticket {
            rank: priority.into(),
            arrival: u64::MAX,
        });
    }

    /// The oldest waiter of each lower rank was bypassed, if it came before the granted one.
    fn count_bypass(&mut self, granted: Ticket) {
        let mut at = self.lanes.partition_point(|lane| lane.rank >= granted.rank);
        while let Some(lane) = self.lanes.get_mut(at) {
            let rank = lane.rank;
            if lane.bypass_first(granted.arrival) < Some(BYPASS_LIMIT) {
                at += 1;
                continue;
            }
            self.age_first_of(at);
            // Lanes have come and gone.
            at = self.lanes.partition_point(|lane| lane.rank >= rank);
        }
    }

    fn age_first_of(&mut self, at: usize) {
        if let Some((arrival, party)) = self.lanes[at].pop() {
            self.forget(at, &party);
            let rank = AGED;
            self.insert(Ticket { rank, arrival }, party);
        }
    }

    #[inline]
    fn insert(&mut self, ticket: Ticket, party: Party<T, A>) {
        if let Some(tickets) = &mut self.tickets {
            tickets.insert(party.attempt, ticket);
        }
        let at = self.lane_at(ticket.rank).unwrap_or_else(|at| {
            self.lanes.insert(at, Lane::new(ticket.rank));
            at
        });
        self.lanes[at].insert(ticket.arrival, party);
    }

    /// The party has left this lane.
    #[inline]
    fn forget(&mut self, lane: usize, party: &Party<T, A>) {
        if let Some(tickets) = &mut self.tickets {
            tickets.remove(&party.attempt);
        }
        self.forget_empty_lane(lane);
    }

    fn forget_empty_lane(&mut self, at: usize) {
        if self.lanes[at].is_empty() {
            self.lanes.remove(at);
        }
    }

    fn ticket(&mut self, attempt: A) -> Option<Ticket> {
        self.tickets().get(&attempt).copied()
    }

    fn tickets(&mut self) -> &mut Tickets<A> {
        let lanes = &self.lanes;
        self.tickets.get_or_insert_with(|| {
            let of_lane = |lane: &Lane<Party<T, A>>| {
                let rank = lane.rank;
                let each = lane.arrivals();
                each.map(move |(arrival, party)| (party.attempt, Ticket { rank, arrival }))
                    .collect::<Vec<_>>()
            };
            lanes.iter().flat_map(of_lane).collect()
        })
    }

    fn lane(&self, rank: i16) -> Option<&Lane<Party<T, A>>> {
        self.lane_at(rank).ok().map(|at| &self.lanes[at])
    }

    fn lane_at(&self, rank: i16) -> Result<usize, usize> {
        self.lanes.binary_search_by(|lane| rank.cmp(&lane.rank))
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
