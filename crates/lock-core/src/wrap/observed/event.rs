//! What an observer is told.

use std::time::Duration;

use crate::{ErrorKind, LockKey, LossReason, Mode, OwnerToken};

/// Hears what happens to locks, from an [`Observed`](super::Observed) backend.
///
/// Called on the thread of the operation, so it should be quick; it may use locks itself, also the
/// observed ones. Any `Fn(&Event)` is one.
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn observe(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// What happened to one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The key.
    pub key: &'a LockKey,
    /// The mode.
    pub mode: Mode,
    /// The attempt; its events come in order.
    pub attempt: OwnerToken,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
///
/// Every [`Attempted`](Self::Attempted) is followed by exactly one of `Acquired`, `Contended`,
/// `Failed` and `Abandoned`; every `Acquired` and `Attached` by exactly one of `Released`, `Lost`
/// and `Detached`, unless the guard is leaked in a way the backend does not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// An acquire was asked for.
    Attempted,
    /// It was not answered at once: it waits for other holders, or for a server.
    Waiting,
    /// It was granted.
    Acquired {
        /// How long that took; `None` when it was answered at once.
        waited: Option<Duration>,
    },
    /// It was one attempt without waiting, and another holder was in the way.
    Contended {
        /// How long that took; `None` when it was answered at once.
        waited: Option<Duration>,
    },
    /// It failed.
    Failed {
        /// How.
        kind: ErrorKind,
        /// How long that took; `None` when it was answered at once.
        waited: Option<Duration>,
    },
    /// It was given up before it was granted: cancelled, or its wait limit passed.
    Abandoned {
        /// How long it had waited.
        waited: Duration,
    },
    /// A hold has ended well.
    Released {
        /// How long it lasted.
        held: Duration,
    },
    /// A hold can no longer be relied on. Reported once, and nothing follows.
    Lost {
        /// Why.
        reason: LossReason,
        /// How long it had lasted.
        held: Duration,
    },
    /// An exclusive hold became a shared one.
    Downgraded,
    /// The lock was separated from its guard and lives on.
    Detached {
        /// How long the guard had held it.
        held: Duration,
    },
    /// A detached lock was taken over.
    Attached,
}
