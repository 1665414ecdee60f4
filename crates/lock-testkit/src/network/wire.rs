//! What travels between a client and the server.

use std::time::Duration;

use lock_core::{Change, Fence, InspectQuery, KeyReport, LockKey, Mode, OwnerToken, PartyRecord};

/// One client of a server: one process, with one connection at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) u64);

/// Which message it is, for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A connection introduces itself.
    Hello,
    /// Asks for a key, or asks again.
    Acquire,
    /// Turns an offer into a lease.
    Claim,
    /// Renews leases.
    Renew,
    /// Gives a lease back.
    Release,
    /// Ends an attempt in any state.
    Cancel,
    /// Changes a lease in place.
    Alter,
    /// Asks for several keys.
    AcquireMany,
    /// Asks who holds and waits.
    Inspect,
    /// Breaks holders.
    Break,
    /// Pushed: the key is yours if you claim it.
    Offer,
    /// Pushed: a lease was broken.
    Loss,
}

/// From client to server.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Hello,
    Acquire {
        key: LockKey,
        application: Box<Application>,
        may_queue: bool,
    },
    Claim {
        key: LockKey,
        attempt: OwnerToken,
    },
    Renew(Vec<(LockKey, OwnerToken, Duration)>),
    Release {
        key: LockKey,
        attempt: OwnerToken,
    },
    Cancel {
        key: LockKey,
        attempt: OwnerToken,
    },
    Alter {
        key: LockKey,
        attempt: OwnerToken,
        change: Change,
    },
    AcquireMany(Vec<(LockKey, Application)>),
    Inspect(InspectQuery),
    Break {
        key: LockKey,
        attempt: Option<OwnerToken>,
    },
}

/// What the server has to know of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Application {
    pub(super) record: PartyRecord,
    pub(super) ttl: Duration,
    pub(super) lock_delay: Option<Duration>,
}

/// From server to client, to an [`Ask`].
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Welcome,
    Granted(Granted),
    GrantedMany(Vec<Granted>),
    /// It waits, and will be offered the key.
    Queued,
    Contended,
    /// The attempt has no such offer or lease.
    Gone,
    Conflict(Mode),
    Renewed(Vec<bool>),
    Released(bool),
    Cancelled,
    Reports(Vec<KeyReport>),
    Broken(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) fence: Fence,
    pub(super) ttl: Duration,
}

/// From server to client, unasked.
#[derive(Clone, Debug)]
pub(super) enum Push {
    Offer { key: LockKey, attempt: OwnerToken },
    Loss { attempt: OwnerToken },
}

impl Ask {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Hello => Kind::Hello,
            Self::Acquire { .. } => Kind::Acquire,
            Self::Claim { .. } => Kind::Claim,
            Self::Renew(_) => Kind::Renew,
            Self::Release { .. } => Kind::Release,
            Self::Cancel { .. } => Kind::Cancel,
            Self::Alter { .. } => Kind::Alter,
            Self::AcquireMany(_) => Kind::AcquireMany,
            Self::Inspect(_) => Kind::Inspect,
            Self::Break { .. } => Kind::Break,
        }
    }
}

impl Push {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Offer { .. } => Kind::Offer,
            Self::Loss { .. } => Kind::Loss,
        }
    }
}
