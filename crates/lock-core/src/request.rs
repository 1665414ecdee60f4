//! What a backend is asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::{Mode, OwnerId, OwnerToken};

/// How long an acquire may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// One attempt, no waiting.
    Now,
    /// Until this deadline.
    Until(Instant),
    /// Without a limit.
    #[default]
    Forever,
}

impl Wait {
    /// At most `limit` from now on. Zero is one attempt.
    #[must_use]
    pub fn at_most(limit: Duration) -> Self {
        if limit.is_zero() {
            Self::Now
        } else {
            Self::Until(Instant::now() + limit)
        }
    }

    /// The deadline, if there is one.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Until(deadline) => Some(deadline),
            Self::Now | Self::Forever => None,
        }
    }
}

/// One attempt to acquire one key, as a backend sees it.
///
/// Built by [`AcquireOptions`](crate::AcquireOptions); cheap to clone, so that a waiting step can
/// keep it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The attempt's identity. Acquire is idempotent under it.
    pub attempt: OwnerToken,
    /// How the key is to be held.
    pub mode: Mode,
    /// How long to wait. The deadline is a hint, for the caller enforces it; [`Wait::Now`] is not.
    pub wait: Wait,
    /// Higher goes first; first come first served within one priority.
    pub priority: i8,
    /// The life of the lease, for backends that have one; `None` leaves it to the backend.
    pub ttl: Option<Duration>,
    /// Who acquires, if that is known.
    pub owner: Option<OwnerId>,
    /// Shown to people who ask who holds the lock.
    pub label: Option<Arc<str>>,
    /// Opaque bytes kept with the holder's record.
    pub record: Option<Arc<[u8]>>,
    /// After an unclean loss, how long the key stays closed.
    pub lock_delay: Option<Duration>,
    /// Where in the code the acquire stands.
    pub site: Option<&'static std::panic::Location<'static>>,
}

impl Request {
    /// A request with every option at its default.
    #[must_use]
    pub fn new(attempt: OwnerToken, mode: Mode, wait: Wait) -> Self {
        Self {
            attempt,
            mode,
            wait,
            priority: 0,
            ttl: None,
            owner: None,
            label: None,
            record: None,
            lock_delay: None,
            site: None,
        }
    }
}
