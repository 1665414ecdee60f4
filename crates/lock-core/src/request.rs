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
    /// What is certain about where the acquire waits and the grant is held.
    pub anchor: Anchor,
    /// What happens when the owner holds the key already.
    pub reentry: Reentry,
}

/// A [`Request`] that is exclusive and has every option but the owner at its default.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PlainRequest {
    /// The attempt's identity.
    pub attempt: OwnerToken,
    /// Who acquires, if that is known.
    pub owner: Option<OwnerId>,
    /// Where in the code the acquire stands.
    pub site: &'static std::panic::Location<'static>,
    /// What is certain about where the acquire waits and the grant is held.
    pub anchor: Anchor,
}

/// What happens when an owner acquires what it holds already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reentry {
    /// It would wait for itself, which is an error where deadlocks are detected.
    #[default]
    Refused,
    /// It is counted; see [`Reentrant`](crate::wrap::Reentrant).
    Counted,
}

/// What is certain about where an acquire waits and its grant is held.
///
/// A guard can be sent to another thread, and of a pending acquire nobody knows who waits for it.
/// So who runs when a lock is acquired is no proof of who has to run for its release; except where
/// the code leaves no choice. Each one contains those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anchor {
    /// Nothing.
    #[default]
    None,
    /// The thread that acquires parks until it has an answer.
    Wait,
    /// The thread that acquires also releases, and in between the guard cannot leave it.
    Hold,
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
            anchor: Anchor::None,
            reentry: Reentry::Refused,
        }
    }
}
