//! Numbers that rise with every exclusive grant, for a resource to refuse the late.

mod file;
mod register;
mod sql;

use std::fmt;

pub use file::FencedFile;
pub use register::{FencedRegister, StaleToken};
pub use sql::FencedTable;

/// The bits a cohort may count in below the backend's base.
const LOCAL_BITS: u32 = 12;

/// A number that strictly rises per key with every exclusive grant: the backend's base, and a local
/// part that a cohort counts in while it passes one remote grant around.
///
/// `base << 12 | local`, below 2^63, so that it fits a SQL `BIGINT`. Every backend builds it with
/// [`from_base`](Self::from_base), so that numbers of two backends have one form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingNumber(u64);

impl FencingNumber {
    /// The largest base: 51 bits, which holds microseconds for 71 years.
    pub const MAX_BASE: u64 = (1 << 51) - 1;
    /// How many local grants one base can number.
    pub const LOCALS: u16 = 1 << LOCAL_BITS;

    /// The first number of a base. `None` when the base is over [`MAX_BASE`](Self::MAX_BASE): the
    /// backend must then refuse to grant, for a number that wraps would go back.
    #[inline]
    #[must_use]
    pub fn from_base(base: u64) -> Option<Self> {
        (base <= Self::MAX_BASE).then_some(Self(base << LOCAL_BITS))
    }

    /// Reads what [`get`](Self::get) gave. `None` when it is 2^63 or more.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw >> 63 == 0).then_some(Self(raw))
    }

    /// The next number of the same base; `None` when the base is used up, and the lock has to be
    /// given back for a new one.
    #[must_use]
    pub fn next_local(self) -> Option<Self> {
        let local = self.0 & u64::from(Self::LOCALS - 1);
        (local + 1 < u64::from(Self::LOCALS)).then_some(Self(self.0 + 1))
    }

    /// The backend's part.
    pub fn base(self) -> u64 {
        self.0 >> LOCAL_BITS
    }

    /// The whole number.
    #[inline]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for FencingNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            self.base(),
            self.0 & u64::from(Self::LOCALS - 1)
        )
    }
}

/// What an exclusive holder shows to the resource it writes to.
///
/// A resource that remembers the highest token it has seen, and refuses lower ones in the same
/// atomic step as the write, stays correct even when a holder was paused past its lease:
/// [`FencedRegister`] in memory, [`FencedFile`] for a file, [`FencedTable`] for SQL.
///
/// Tokens order by epoch, then number. The epoch is configuration (`fencing_epoch`), raised when
/// the backend is changed, restored or wiped.
///
/// The technique is Martin Kleppmann's ("How to do distributed locking", 2016), after the lock
/// generation numbers of Google's Chubby (OSDI 2006).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    epoch: u32,
    number: FencingNumber,
}

impl FencingToken {
    /// A token, as a guard gives it or as it was sent over a wire.
    #[inline]
    #[must_use]
    pub fn new(epoch: u32, number: FencingNumber) -> Self {
        Self { epoch, number }
    }

    /// The configured epoch; 0 unless it was raised.
    pub fn epoch(self) -> u32 {
        self.epoch
    }

    /// The number within the epoch.
    #[inline]
    pub fn number(self) -> FencingNumber {
        self.number
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number.get())
    }
}

/// The fencing number of the last exclusive grant, as a shared holder sees it: a version of what it
/// reads, and no right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadVersion(pub FencingNumber);

/// Which of the permits a permit holder has, counted from 0; the first of them if it has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// What a grant carries for resources to check, by mode. None of the three passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// For an exclusive holder.
    Exclusive(FencingNumber),
    /// For a shared holder, where the backend knows the last exclusive grant.
    Shared(Option<ReadVersion>),
    /// For a permit holder.
    Permit(Slot),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_counts_4096_local_grants_and_then_ends() {
        let mut number = FencingNumber::from_base(7).unwrap();
        let next_base = FencingNumber::from_base(8).unwrap();
        for _ in 1..FencingNumber::LOCALS {
            let next = number.next_local().unwrap();
            assert!(number < next && next < next_base && next.base() == 7);
            number = next;
        }
        assert_eq!(number.next_local(), None);
    }

    #[test]
    fn numbers_fit_a_signed_column() {
        let largest = FencingNumber::from_base(FencingNumber::MAX_BASE).unwrap();
        assert!(i64::try_from(largest.get()).is_ok());
        assert_eq!(FencingNumber::from_base(FencingNumber::MAX_BASE + 1), None);
        assert_eq!(FencingNumber::from_raw(1 << 63), None);
    }

    #[test]
    fn a_raised_epoch_outranks_any_number() {
        let late = FencingToken::new(
            0,
            FencingNumber::from_base(FencingNumber::MAX_BASE).unwrap(),
        );
        let fresh = FencingToken::new(1, FencingNumber::from_base(0).unwrap());
        assert!(late < fresh);
    }
}
