//! What a transaction changed for others, told when it is over.

use lock_core::{Fence, FencingNumber, ReadVersion, Slot};

/// Who is told: an attempt of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) session: i64,
    pub(crate) attempt: u64,
}

/// What an attempt was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) fence: Fence,
    /// The end of the lease, in nanoseconds since boot.
    pub(crate) expires: Option<u64>,
}

impl Claim {
    pub(crate) fn exclusive(base: i64, expires: Option<i64>) -> Self {
        Self::new(Fence::Exclusive(number(base)), expires)
    }

    pub(crate) fn shared(base: i64, expires: Option<i64>) -> Self {
        Self::new(Fence::Shared(Some(ReadVersion(number(base)))), expires)
    }

    pub(crate) fn permit(slot: u32, expires: Option<i64>) -> Self {
        Self::new(Fence::Permit(Slot(slot)), expires)
    }

    fn new(fence: Fence, expires: Option<i64>) -> Self {
        Self {
            fence,
            expires: expires.map(|nanos| nanos as u64),
        }
    }
}

/// The table's own check keeps bases below the limit.
fn number(base: i64) -> FencingNumber {
    FencingNumber::from_base(base as u64)
        .unwrap_or_else(|| unreachable!("the database took a fencing base of {base}"))
}

/// One piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// It waited, and holds now.
    Granted(Claim),
    /// It held, and was broken or has expired.
    Revoked,
}

/// News in the order in which it happened.
pub(crate) type News = Vec<(Seat, Item)>;
