//! The waiters of one key, in order.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU64;

use foldhash::fast::RandomState;

use super::lane::Lane;
use super::{BYPASS_LIMIT, Party};
use crate::Mode;

/// Above every priority: where waiters go that were bypassed too often.
const AGED: i16 = i8::MAX as i16 + 1;

/// Where a waiter stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    rank: i16,
    arrival: u64,
}

/// Where a waiter was put in line, to find it again. One word, for every waiter keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(NonZeroU64);

impl Ticket {
    const RANK_BITS: u32 = 9;
    const LOWEST: i16 = i8::MIN as i16;

    /// The arrivals that fit last for half a century at ten million a second.
    #[inline]
    fn of(spot: Spot) -> Self {
        let above = (spot.rank - Self::LOWEST) as u64;
        let packed = spot.arrival << Self::RANK_BITS | above;
        // The lowest bit is there to be not zero.
        Self(NonZeroU64::MIN | packed << 1)
    }

    #[inline]
    fn spot(self) -> Spot {
        let packed = self.0.get() >> 1;
        let above = packed & ((1 << Self::RANK_BITS) - 1);
        Spot {
            rank: above as i16 + Self::LOWEST,
            arrival: packed >> Self::RANK_BITS,
        }
    }
}

type Spots<A> = HashMap<A, Spot, RandomState>;

/// One lane for each priority that is waited with.
#[derive(Clone)]
pub(super) struct Waiting<T, A> {
    /// The highest rank. Empty only if nobody waits.
    top: Lane<Party<T, A>>,
    /// The others, highest rank first; a lane that is empty is gone. Mostly there is none.
    lower: Vec<Lane<Party<T, A>>>,
    /// Made when a waiter is first asked for by its attempt: who only ever waits for the front of
    /// the line does not pay for it.
    spots: Option<Box<Spots<A>>>,
    arrivals: u64,
    /// How many waiters ask for [`Mode::Shared`], and for permits, and of how many.
    shared: usize,
    permits: usize,
    of: Option<Mode>,
}

impl<T, A> Default for Waiting<T, A> {
    fn default() -> Self {
        Self {
            top: Lane::new(0),
            lower: Vec::new(),
            spots: None,
            arrivals: 0,
            shared: 0,
            permits: 0,
            of: None,
        }
    }
}

impl<T, A: Copy + Eq + Hash> Waiting<T, A> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.top.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Party<T, A>> {
        self.lanes().flat_map(Lane::parties)
    }

    pub(super) fn into_parties(self) -> impl Iterator<Item = Party<T, A>> {
        let lanes = std::iter::once(self.top).chain(self.lower);
        lanes.flat_map(Lane::into_parties)
    }

    #[inline]
    pub(super) fn head(&self) -> Option<&Party<T, A>> {
        self.top.first()
    }

    #[inline]
    pub(super) fn head_mut(&mut self) -> Option<&mut Party<T, A>> {
        self.top.first_mut()
    }

    pub(super) fn get(&mut self, attempt: A) -> Option<&Party<T, A>> {
        let spot = self.spot(attempt)?;
        self.lane_mut(spot.rank)?.get(spot.arrival)
    }

    pub(super) fn get_mut(&mut self, attempt: A) -> Option<&mut Party<T, A>> {
        let spot = self.spot(attempt)?;
        self.lane_mut(spot.rank)?.get_mut(spot.arrival)
    }

    /// Whether a newcomer of this priority goes before everyone here.
    pub(super) fn yields_to(&self, priority: i8) -> bool {
        self.top.is_empty() || i16::from(priority) > self.top.rank
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
        let spot = Spot {
            rank: party.priority.into(),
            arrival: self.arrivals,
        };
        self.arrivals += 1;
        self.count_mode(party.mode, true);
        self.insert(spot, party);
        Ticket::of(spot)
    }

    pub(super) fn remove(&mut self, attempt: A) -> Option<Party<T, A>> {
        let spot = self.spot(attempt)?;
        self.remove_at(spot, attempt)
    }

    /// The same for one that was put in line there, unless it was moved to another lane.
    #[inline]
    pub(super) fn remove_with(&mut self, ticket: Ticket, attempt: A) -> Option<Party<T, A>> {
        self.remove_at(ticket.spot(), attempt)
    }

    #[inline]
    fn remove_at(&mut self, spot: Spot, attempt: A) -> Option<Party<T, A>> {
        let lane = self.lane_mut(spot.rank)?;
        let party = lane.remove(spot.arrival, |party| party.attempt == attempt)?;
        self.forget(spot.rank, &party);
        self.count_mode(party.mode, false);
        Some(party)
    }

    /// Takes the head out, to be granted.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Party<T, A>> {
        let rank = self.top.rank;
        let (arrival, party) = self.top.pop()?;
        self.forget(rank, &party);
        self.count_mode(party.mode, false);
        self.count_bypass(Spot { rank, arrival });
        Some(party)
    }

    /// A newcomer was granted before everyone of lower rank.
    pub(super) fn count_newcomer(&mut self, priority: i8) {
        self.count_bypass(Spot {
            rank: priority.into(),
            arrival: u64::MAX,
        });
    }

    /// The oldest waiter of each lower rank was bypassed, if it came before the granted one.
    #[inline]
    fn count_bypass(&mut self, granted: Spot) {
        if self.below(granted.rank).is_some() {
            self.count_bypass_of_each(granted);
        }
    }

    #[cold]
    fn count_bypass_of_each(&mut self, granted: Spot) {
        let mut above = granted.rank;
        while let Some(lane) = self.below(above) {
            above = lane.rank;
            if lane.bypass_first(granted.arrival) >= Some(BYPASS_LIMIT) {
                self.age_first_of(above);
            }
        }
    }

    /// The highest lane of a lower rank.
    #[inline]
    fn below(&mut self, rank: i16) -> Option<&mut Lane<Party<T, A>>> {
        if self.top.rank < rank {
            return Some(&mut self.top);
        }
        self.lower.iter_mut().find(|lane| lane.rank < rank)
    }

    fn age_first_of(&mut self, rank: i16) {
        let first = self.lane_mut(rank).and_then(Lane::pop);
        if let Some((arrival, party)) = first {
            self.forget(rank, &party);
            let rank = AGED;
            self.insert(Spot { rank, arrival }, party);
        }
    }

    #[inline]
    fn insert(&mut self, spot: Spot, party: Party<T, A>) {
        if let Some(spots) = &mut self.spots {
            spots.insert(party.attempt, spot);
        }
        if spot.rank != self.top.rank {
            self.add_lane(spot.rank);
        }
        if let Some(lane) = self.lane_mut(spot.rank) {
            lane.insert(spot.arrival, party);
        }
    }

    /// Makes a lane for this rank, unless there is one.
    #[cold]
    fn add_lane(&mut self, rank: i16) {
        if self.top.is_empty() {
            self.top = Lane::new(rank);
        } else if rank > self.top.rank {
            let top = std::mem::replace(&mut self.top, Lane::new(rank));
            self.lower.insert(0, top);
        } else if let Err(at) = self.lower_at(rank) {
            self.lower.insert(at, Lane::new(rank));
        }
    }

    /// The party has left the lane of this rank.
    #[inline]
    fn forget(&mut self, rank: i16, party: &Party<T, A>) {
        if let Some(spots) = &mut self.spots {
            spots.remove(&party.attempt);
        }
        if self.top.is_empty() || rank != self.top.rank {
            self.forget_empty_lane();
        }
    }

    #[cold]
    fn forget_empty_lane(&mut self) {
        self.lower.retain(|lane| !lane.is_empty());
        if !self.top.is_empty() {
            return;
        }
        if self.lower.is_empty() {
            self.spots = None;
            // The next line begins with the first place of a block.
            self.arrivals = 0;
        } else {
            self.top = self.lower.remove(0);
        }
    }

    fn spot(&mut self, attempt: A) -> Option<Spot> {
        if self.is_empty() {
            return None;
        }
        self.spots().get(&attempt).copied()
    }

    fn spots(&mut self) -> &mut Spots<A> {
        if self.spots.is_none() {
            let of_lane = |lane: &Lane<Party<T, A>>| {
                let rank = lane.rank;
                let each = lane.arrivals();
                each.map(move |(arrival, party)| (party.attempt, Spot { rank, arrival }))
                    .collect::<Vec<_>>()
            };
            let spots = self.lanes().flat_map(of_lane).collect();
            self.spots = Some(Box::new(spots));
        }
        self.spots.get_or_insert_default()
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane<Party<T, A>>> {
        std::iter::once(&self.top).chain(&self.lower)
    }

    #[inline]
    fn lane_mut(&mut self, rank: i16) -> Option<&mut Lane<Party<T, A>>> {
        if self.top.rank == rank {
            return Some(&mut self.top);
        }
        let at = self.lower_at(rank).ok()?;
        self.lower.get_mut(at)
    }

    fn lower_at(&self, rank: i16) -> Result<usize, usize> {
        self.lower.binary_search_by(|lane| rank.cmp(&lane.rank))
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
