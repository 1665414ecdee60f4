//! The waiters of one rank, first come first served.

use std::collections::VecDeque;

/// Leaving this many empty places costs nothing; beyond, they may be half of the line.
const GAPS_ALLOWED: usize = 32;

/// Waiters in the order of their arrival. Whoever leaves the middle leaves a gap behind, so that
/// the others need not move; gaps are closed when they are half of the line.
///
/// Invariant: the first place is taken, unless the lane is empty.
#[derive(Clone, Debug)]
pub(super) struct Lane<P> {
    pub(super) rank: i16,
    line: VecDeque<Place<P>>,
    gaps: usize,
    /// How often the first one was bypassed. Nobody is put before it where that happens.
    bypassed: u32,
}

#[derive(Clone, Debug)]
struct Place<P> {
    arrival: u64,
    party: Option<P>,
}

impl<P> Lane<P> {
    pub(super) fn new(rank: i16) -> Self {
        Self {
            rank,
            line: VecDeque::new(),
            gaps: 0,
            bypassed: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn parties(&self) -> impl Iterator<Item = &P> {
        self.line.iter().filter_map(|place| place.party.as_ref())
    }

    pub(super) fn into_parties(self) -> impl Iterator<Item = P> {
        self.line.into_iter().filter_map(|place| place.party)
    }

    /// The arrivals and parties, first one first.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = (u64, &P)> {
        let taken = |place: &'_ Place<P>| place.party.is_some();
        self.line
            .iter()
            .filter(move |place| taken(place))
            .filter_map(|place| Some((place.arrival, place.party.as_ref()?)))
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&P> {
        self.line.front()?.party.as_ref()
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut P> {
        self.line.front_mut()?.party.as_mut()
    }

    pub(super) fn get(&self, arrival: u64) -> Option<&P> {
        self.line.get(self.find(arrival)?)?.party.as_ref()
    }

    pub(super) fn get_mut(&mut self, arrival: u64) -> Option<&mut P> {
        let at = self.find(arrival)?;
        self.line.get_mut(at)?.party.as_mut()
    }

    /// Adds a party where its arrival belongs: at the end, unless it comes from another lane.
    #[inline]
    pub(super) fn insert(&mut self, arrival: u64, party: P) {
        let place = Place {
            arrival,
            party: Some(party),
        };
        match self.line.back() {
            Some(last) if last.arrival > arrival => {
                let at = self.line.partition_point(|place| place.arrival < arrival);
                self.line.insert(at, place);
            }
            _ => self.line.push_back(place),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<(u64, P)> {
        let place = self.line.pop_front()?;
        self.bypassed = 0;
        if self.gaps > 0 {
            self.close_first_gaps();
        }
        Some((place.arrival, place.party?))
    }

    /// Takes out whoever came then, if it is the one.
    #[inline]
    pub(super) fn remove(&mut self, arrival: u64, is_it: impl Fn(&P) -> bool) -> Option<P> {
        let at = self.find(arrival)?;
        let party = self.line.get_mut(at)?.party.take_if(|party| is_it(party))?;
        self.gaps += 1;
        if at == 0 {
            self.bypassed = 0;
            self.close_first_gaps();
        }
        if self.gaps > GAPS_ALLOWED && self.gaps > self.line.len() / 2 {
            self.close_all_gaps();
        }
        Some(party)
    }

    /// Counts that the first one was bypassed by someone who came after it, and how often now.
    pub(super) fn bypass_first(&mut self, by_arrival: u64) -> Option<u32> {
        if self.line.front()?.arrival >= by_arrival {
            return None;
        }
        self.bypassed += 1;
        Some(self.bypassed)
    }

    #[inline]
    fn find(&self, arrival: u64) -> Option<usize> {
        // Those who came in a row stand in a row, unless gaps were closed. In a long line, each look
        // elsewhere is a cache miss.
        let first = self.line.front()?.arrival;
        let at = usize::try_from(arrival.checked_sub(first)?).ok()?;
        match self.line.get(at) {
            Some(place) if place.arrival == arrival => Some(at),
            _ => self.search(arrival),
        }
    }

    #[cold]
    fn search(&self, arrival: u64) -> Option<usize> {
        let found = self
            .line
            .binary_search_by_key(&arrival, |place| place.arrival);
        found.ok()
    }

    fn close_first_gaps(&mut self) {
        while self.line.front().is_some_and(|place| place.party.is_none()) {
            self.line.pop_front();
            self.gaps -= 1;
        }
    }

    #[cold]
    fn close_all_gaps(&mut self) {
        self.line.retain(|place| place.party.is_some());
        self.gaps = 0;
    }
}
