//! What happened, written down by many threads and processes, and judged afterwards.
//!
//! An interval starts after the acquire has returned and ends before the release is called, so it
//! lies inside the real hold: intervals of modes that exclude each other must not overlap.

mod check;
mod recorder;

use lock_core::{FencingNumber, Mode};
use serde::{Deserialize, Serialize};

pub use check::{Summary, Violation, check};
pub use recorder::{Recorder, read};

/// A holder came in or is about to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since boot, on the clock of [`lock_core::clock::Instant`].
    pub at: u64,
    /// The process that recorded it.
    pub process: u32,
    /// The key, as [`LockKey::qualified`](lock_core::LockKey::qualified) writes it.
    pub key: String,
    /// The attempt, which tells the holders of a key apart.
    pub attempt: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The attempt holds.
    Enter {
        /// How it holds.
        mode: ModeRecord,
        /// An exclusive holder's fencing number.
        fencing: Option<u64>,
    },
    /// The attempt is about to be released.
    Leave,
}

/// A [`Mode`] that can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModeRecord {
    /// [`Mode::Exclusive`].
    Exclusive,
    /// [`Mode::Shared`].
    Shared,
    /// [`Mode::Permit`].
    Permit {
        /// How many are held.
        count: u32,
        /// Of how many.
        of: u32,
    },
}

impl From<Mode> for ModeRecord {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
            Mode::Permit(permits) => Self::Permit {
                count: permits.count(),
                of: permits.of(),
            },
        }
    }
}

impl ModeRecord {
    /// The mode that was written down.
    ///
    /// # Errors
    /// `InvalidConfig` for permits that can never be granted.
    pub fn mode(self) -> lock_core::Result<Mode> {
        match self {
            Self::Exclusive => Ok(Mode::Exclusive),
            Self::Shared => Ok(Mode::Shared),
            Self::Permit { count, of } => Mode::permits(count, of),
        }
    }
}

/// The raw fencing number of a guard, if it has one.
pub(crate) fn fencing_of(guard: &lock_core::LockGuard) -> Option<u64> {
    guard
        .fencing_token()
        .map(|token| FencingNumber::get(token.number()))
}
