//! What is said between the two processes, one line of JSON each.

use std::time::Duration;

use lock_core::{AcquireOptions, LockKey, Mode, Result};
use serde::{Deserialize, Serialize};

use crate::history::ModeRecord;
use crate::stress::Plan;

/// A question to a second process. Questions are answered as they are done, in any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// What to do.
    pub act: Act,
    /// The name of the guard it is about.
    pub hold: String,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Act {
    /// Acquire, and keep the guard under the name.
    Acquire {
        /// The key, qualified.
        key: String,
        /// How to hold it.
        mode: ModeRecord,
        /// How long to wait; `None` without a limit.
        wait: Option<Duration>,
        /// The lease life; `None` for the default.
        ttl: Option<Duration>,
    },
    /// Release the guard.
    Release,
    /// Say whether the guard is held.
    IsHeld,
    /// Detach the guard, and say its text.
    Detach,
    /// Attach a detached lock under the name.
    Attach {
        /// The text of the detached lock.
        detached: String,
    },
    /// How many of this process's clients wait for a key.
    Waiters {
        /// The key, qualified.
        key: String,
    },
    /// Fork a child that drops the guard and then lives on.
    Fork,
    /// Start a program that lives on.
    Exec,
    /// Take part in a stress run.
    Stress(Plan),
    /// End at once, releasing nothing.
    Exit,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Held now.
    Granted {
        /// An exclusive holder's fencing number.
        fencing: Option<u64>,
    },
    /// Not in time.
    Contended,
    /// Whether it was ours until now, or is held.
    Yes(bool),
    /// How many.
    Count(usize),
    /// A text.
    Text(String),
    /// A child process.
    Child(u32),
    /// What failed.
    Failed(String),
}

impl Ask {
    /// Something to do with the guard of this name.
    #[must_use]
    pub fn on(act: Act, hold: &str) -> Self {
        let hold = hold.to_owned();
        Self { act, hold }
    }

    /// Acquire, waiting without a limit.
    #[must_use]
    pub fn acquire(hold: &str, key: &LockKey, mode: Mode) -> Self {
        let act = Act::Acquire {
            key: key.qualified().to_owned(),
            mode: mode.into(),
            wait: None,
            ttl: None,
        };
        Self::on(act, hold)
    }

    /// One attempt to acquire.
    #[must_use]
    pub fn try_acquire(hold: &str, key: &LockKey, mode: Mode) -> Self {
        let mut ask = Self::acquire(hold, key, mode);
        if let Act::Acquire { wait, .. } = &mut ask.act {
            *wait = Some(Duration::ZERO);
        }
        ask
    }

    /// The lease life to ask for.
    #[must_use]
    pub fn ttl(mut self, life: Option<Duration>) -> Self {
        if let Act::Acquire { ttl, .. } = &mut self.act {
            *ttl = life;
        }
        self
    }
}

/// The options of an [`Act::Acquire`].
pub(super) fn options(
    mode: ModeRecord,
    wait: Option<Duration>,
    ttl: Option<Duration>,
) -> Result<AcquireOptions> {
    let mut options = AcquireOptions::new().mode(mode.mode()?);
    if let Some(limit) = wait {
        options = options.wait_limit(limit);
    }
    if let Some(life) = ttl {
        options = options.ttl(life);
    }
    Ok(options)
}
