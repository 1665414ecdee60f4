//! The waiters of one rank, first come first served.

use std::collections::VecDeque;

/// Leaving this many empty blocks costs nothing; beyond, they may be half of the lane.
const GAPS_ALLOWED: usize = 32;

/// Waiters in the order of their arrival, in blocks of as many as a word has bits.
///
/// A long line grows and shrinks block by block, and whoever leaves the middle leaves its place
/// behind: nobody is moved, so each step takes the same time, which matters to those who wait for a
/// mutex meanwhile. A block goes with the last one in it.
///
/// Invariant: the first block and the last one are not empty, unless the lane is: it keeps one then.
#[derive(Clone, Debug)]
pub(super) struct Lane<P> {
    pub(super) rank: i16,
    /// In the order of their numbers, mostly in a row.
    blocks: VecDeque<Block<P>>,
    /// How many blocks in the middle are empty.
    gaps: usize,
    /// The places of a block that is gone, for the next one.
    spare: Vec<Option<P>>,
    /// How often the first one was bypassed. Nobody is put before it where that happens.
    bypassed: u32,
}

/// Those of [`PLACES`] arrivals who wait.
#[derive(Clone, Debug)]
struct Block<P> {
    number: u64,
    /// Which places are taken.
    taken: u32,
    places: Vec<Option<P>>,
}

const PLACES: u64 = u32::BITS as u64;

/// How many places an empty lane keeps.
const PLACES_KEPT: usize = 4;

impl<P> Block<P> {
    fn new(number: u64, places: Vec<Option<P>>) -> Self {
        Self {
            number,
            taken: 0,
            places,
        }
    }

    #[inline]
    fn first(&self) -> u64 {
        u64::from(self.taken.trailing_zeros())
    }

    #[inline]
    fn put(&mut self, place: u64, party: P) {
        self.taken |= 1 << place;
        let at = place as usize;
        if at == self.places.len() {
            self.places.push(Some(party));
        } else {
            self.places
                .resize_with(self.places.len().max(at + 1), || None);
            self.places[at] = Some(party);
        }
    }

    /// Takes out whoever is there, if it is the one.
    #[inline]
    fn take(&mut self, place: u64, is_it: impl Fn(&P) -> bool) -> Option<P> {
        let kept = self.places.get_mut(place as usize)?;
        let party = kept.take_if(|party| is_it(party))?;
        self.taken &= !(1 << place);
        Some(party)
    }

    fn parties(&self) -> impl Iterator<Item = (u64, &P)> {
        let arrivals = self.number * PLACES..;
        let each = arrivals.zip(&self.places);
        each.filter_map(|(arrival, party)| Some((arrival, party.as_ref()?)))
    }
}

impl<P> Lane<P> {
    pub(super) fn new(rank: i16) -> Self {
        Self {
            rank,
            blocks: VecDeque::new(),
            gaps: 0,
            spare: Vec::new(),
            bypassed: 0,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.front().is_none_or(|first| first.taken == 0)
    }

    pub(super) fn parties(&self) -> impl Iterator<Item = &P> {
        self.arrivals().map(|(_, party)| party)
    }

    pub(super) fn into_parties(self) -> impl Iterator<Item = P> {
        self.blocks
            .into_iter()
            .flat_map(|block| block.places)
            .flatten()
    }

    /// The arrivals and parties, first one first.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = (u64, &P)> {
        self.blocks.iter().flat_map(Block::parties)
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&P> {
        let block = self.blocks.front()?;
        block.places.get(block.first() as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn first_mut(&mut self) -> Option<&mut P> {
        let block = self.blocks.front_mut()?;
        let first = block.first() as usize;
        block.places.get_mut(first)?.as_mut()
    }

    pub(super) fn get(&self, arrival: u64) -> Option<&P> {
        let block = self.blocks.get(self.find(arrival / PLACES)?)?;
        block.places.get((arrival % PLACES) as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, arrival: u64) -> Option<&mut P> {
        let at = self.find(arrival / PLACES)?;
        let block = self.blocks.get_mut(at)?;
        block.places.get_mut((arrival % PLACES) as usize)?.as_mut()
    }

    /// Adds a party where its arrival belongs: at the end, unless it comes from another lane.
    #[inline]
    pub(super) fn insert(&mut self, arrival: u64, party: P) {
        let number = arrival / PLACES;
        match self.blocks.back_mut() {
            Some(last) if last.number == number => last.put(arrival % PLACES, party),
            Some(last) if last.taken == 0 => {
                last.number = number;
                last.put(arrival % PLACES, party);
            }
            _ => self.insert_elsewhere(arrival, party),
        }
    }

    #[cold]
    fn insert_elsewhere(&mut self, arrival: u64, party: P) {
        let number = arrival / PLACES;
        let at = self.blocks.partition_point(|block| block.number < number);
        match self.blocks.get(at) {
            Some(block) if block.number == number => self.gaps -= usize::from(block.taken == 0),
            _ => {
                let mut places = std::mem::take(&mut self.spare);
                if !self.blocks.is_empty() {
                    // A short line should stay small.
                    places.reserve_exact(PLACES as usize);
                }
                self.blocks.insert(at, Block::new(number, places));
            }
        }
        self.blocks[at].put(arrival % PLACES, party);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<(u64, P)> {
        let block = self.blocks.front_mut()?;
        let place = block.first();
        let arrival = block.number * PLACES + place;
        let party = block.take(place, |_| true)?;
        self.bypassed = 0;
        if block.taken == 0 {
            self.forget_block(0);
        }
        Some((arrival, party))
    }

    /// Takes out whoever came then, if it is the one.
    #[inline]
    pub(super) fn remove(&mut self, arrival: u64, is_it: impl Fn(&P) -> bool) -> Option<P> {
        let at = self.find(arrival / PLACES)?;
        let block = self.blocks.get_mut(at)?;
        let (first, place) = (block.first(), arrival % PLACES);
        let party = block.take(place, is_it)?;
        if at == 0 && place == first {
            self.bypassed = 0;
        }
        if block.taken == 0 {
            self.forget_block(at);
        }
        Some(party)
    }

    /// Counts that the first one was bypassed by someone who came after it, and how often now.
    pub(super) fn bypass_first(&mut self, by_arrival: u64) -> Option<u32> {
        let block = self.blocks.front()?;
        if block.taken == 0 || block.number * PLACES + block.first() >= by_arrival {
            return None;
        }
        self.bypassed += 1;
        Some(self.bypassed)
    }

    /// Where the block of this number is.
    #[inline]
    fn find(&self, number: u64) -> Option<usize> {
        // They stand in a row, unless gaps were closed.
        let first = self.blocks.front()?.number;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        match self.blocks.get(at) {
            Some(block) if block.number == number => Some(at),
            _ => self.search(number),
        }
    }

    #[cold]
    fn search(&self, number: u64) -> Option<usize> {
        let found = self
            .blocks
            .binary_search_by_key(&number, |block| block.number);
        found.ok()
    }

    /// The block has become empty.
    #[cold]
    fn forget_block(&mut self, at: usize) {
        if self.blocks.len() == 1 {
            let places = &mut self.blocks[at].places;
            places.clear();
            places.shrink_to(PLACES_KEPT);
            self.spare = Vec::new();
            return;
        }
        self.spare = std::mem::take(&mut self.blocks[at].places);
        self.spare.clear();
        self.gaps += 1;
        let is_empty = |block: &Block<P>| block.taken == 0;
        while self.blocks.front().is_some_and(is_empty) {
            self.blocks.pop_front();
            self.gaps -= 1;
        }
        while self.blocks.back().is_some_and(is_empty) {
            self.blocks.pop_back();
            self.gaps -= 1;
        }
        if self.gaps > GAPS_ALLOWED && self.gaps > self.blocks.len() / 2 {
            self.blocks.retain(|block| !is_empty(block));
            self.gaps = 0;
        }
    }
}
