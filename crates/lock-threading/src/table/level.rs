//! Which of the slots are in use.

/// How many times as many slots the next level has: mostly it is the last one. Levels in between would
/// be left as soon, for the threads that meet in a slot also wait for its cache line when they do not.
const FACTOR: usize = 256;

/// A power of two of slots, within one array where each level follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    offset: u32,
    mask: u32,
}

impl Level {
    /// The first level, of so many slots.
    pub(super) fn first(len: usize) -> Self {
        debug_assert!(len.is_power_of_two());
        Self {
            offset: 0,
            mask: (len - 1) as u32,
        }
    }

    /// How many slots all levels have until one has `len`.
    pub(super) fn all_up_to(self, len: usize) -> usize {
        let mut level = self;
        while level.len() < len {
            level = level.followed_by((level.len() * FACTOR).min(len));
        }
        level.end()
    }

    /// The level after this one, if the array, of `all` slots, has one.
    pub(super) fn next(self, all: usize) -> Option<Self> {
        let left = all - self.end();
        (left > 0).then(|| self.followed_by((self.len() * FACTOR).min(left)))
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.mask as usize + 1
    }

    /// Where in the array the slot is for this number, or the remainder of it.
    #[inline]
    pub(super) fn index(self, number: usize) -> usize {
        self.offset as usize + (number & self.mask as usize)
    }

    #[inline]
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.offset) << 32 | u64::from(self.mask)
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            offset: (bits >> 32) as u32,
            mask: bits as u32,
        }
    }

    fn end(self) -> usize {
        self.offset as usize + self.len()
    }

    fn followed_by(self, len: usize) -> Self {
        Self {
            offset: self.end() as u32,
            mask: (len - 1) as u32,
        }
    }
}
