//! Requests that are sent, or to be sent, and not answered.

use lock_core::clock::Instant;
use lock_core::{Change, Grant, LockKey, OwnerToken, Released, Renewal, Renewed};

use crate::backend::{Application, Listener};
use crate::names::Names;
use crate::script::Call;

/// A request.
#[derive(Debug)]
pub(super) struct Open {
    /// When it was asked for, the first time.
    pub(super) since: Instant,
    pub(super) purpose: Purpose,
    pub(super) call: Call,
    pub(super) slot: u16,
    /// Over which connection, and when. Of no meaning until it is sent.
    pub(super) link: u64,
    pub(super) sent: Instant,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// An acquire; the attempt itself says when it is sent again.
    Acquire(OwnerToken),
    /// The same by the short script, which makes a brief holder.
    AcquireFree(OwnerToken),
    /// The end of an attempt; the debt says when it is sent again.
    Leave(OwnerToken),
    Release {
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
        /// As that of a brief holder, which may have to be followed by the long script.
        brief: bool,
        /// An earlier one may have been carried out unheard.
        again: bool,
        listener: Listener<Released>,
    },
    /// A part of a renewal, from this place on.
    Renew {
        gather: u64,
        first: usize,
        batch: Vec<Renewal>,
    },
    Alter {
        key: LockKey,
        names: Names,
        grant: Grant,
        change: Change,
        listener: Listener<Grant>,
    },
    AcquireMany {
        wanted: Vec<Application>,
        listener: Listener<Option<Vec<Grant>>>,
    },
    Break {
        names: Names,
        listener: Listener<usize>,
    },
    /// A look at a lock whose offer was not claimed.
    Nudge(Names),
}

/// A renewal of many leases, answered in parts.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) left: usize,
    pub(super) outcomes: Vec<Option<Renewed>>,
    /// `None` for a look after a reconnect, and for a claim.
    pub(super) listener: Option<Listener<Vec<Renewed>>>,
}

impl Open {
    pub(super) fn new(purpose: Purpose, call: Call, slot: u16) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            purpose,
            call,
            slot,
            link: 0,
            sent: now,
        }
    }
}
