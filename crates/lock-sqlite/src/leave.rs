//! Ending an attempt, in any state.

use std::sync::Arc;

use lock_core::{LockKey, Mode, OwnerToken, Released, Result};

use crate::batch::{Command, Work};
use crate::database::Database;
use crate::line::{Line, Removed};
use crate::news::Seat;
use crate::office::Office;
use crate::session::Session;
use crate::{patrol, sql};

/// Ends an attempt, and lets the next ones in.
#[derive(Debug)]
pub(crate) struct Leave {
    key: LockKey,
    attempt: OwnerToken,
    /// As far as it is known here.
    mode: Mode,
    held: bool,
}

impl Leave {
    pub(crate) fn new(key: &LockKey, attempt: OwnerToken, mode: Mode) -> Self {
        Self {
            key: key.clone(),
            attempt,
            mode,
            held: false,
        }
    }

    pub(crate) fn released(&self) -> Released {
        if self.held {
            Released::Released
        } else {
            Released::AlreadyLost
        }
    }

    fn unclaim(&self, database: &Database, session: &Session) -> rusqlite::Result<bool> {
        let holder = (
            self.key.qualified(),
            session.id(),
            self.attempt.counter() as i64,
        );
        Ok(database.execute(sql::UNCLAIM, holder)? == 1)
    }
}

impl Command for Leave {
    fn run_alone(&mut self, database: &Database, session: &Session) -> rusqlite::Result<bool> {
        self.held = self.mode == Mode::Exclusive && self.unclaim(database, session)?;
        Ok(self.held)
    }

    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.held = self.mode == Mode::Exclusive && self.unclaim(work.database, work.session)?;
        if self.held {
            return Ok(());
        }
        let seat = Seat {
            session: work.session.id(),
            attempt: self.attempt.counter(),
        };
        if let Some(mut line) = Line::open(work, self.key.qualified())? {
            let removed = line.remove(seat)?;
            self.held = removed == Some(Removed::Holder);
            if removed.is_some() {
                line.admit()?;
                line.save()?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, office: &Arc<Office>, outcome: &Result<()>) {
        match outcome {
            Ok(()) => office.attempts().forget(self.attempt),
            Err(error) => {
                tracing::debug!(key = %self.key, %error, "a release is still owed");
                office.attempts().owe(self.attempt);
                patrol::look_after_waiters(office);
            }
        }
    }
}
