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
    /// The short way, for a key that nobody waits for, failed or is not worth a try.
    tried: bool,
    held: bool,
    /// Another one holds the key exclusively now.
    is_handed_over: bool,
}

impl Leave {
    /// `has_waited`: so did others then, and some probably still do.
    pub(crate) fn new(key: &LockKey, attempt: OwnerToken, mode: Mode, has_waited: bool) -> Self {
        Self {
            key: key.clone(),
            attempt,
            mode,
            tried: has_waited,
            held: false,
            is_handed_over: false,
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
        if self.tried {
            return Ok(false);
        }
        self.tried = true;
        self.held = self.mode == Mode::Exclusive && self.unclaim(database, session)?;
        Ok(self.held)
    }

    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        if self.run_alone(work.database, work.session)? {
            return Ok(());
        }
        // What an earlier run found was rolled back.
        (self.held, self.is_handed_over) = (false, false);
        let seat = Seat {
            session: work.session.id(),
            attempt: self.attempt.counter(),
        };
        if let Some(mut line) = Line::open(work, self.key.qualified())? {
            let removed = line.remove(seat)?;
            self.held = removed == Some(Removed::Holder);
            if removed.is_some() {
                line.admit()?;
                self.is_handed_over = line.is_taken();
                line.save()?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, office: &Arc<Office>, outcome: &Result<()>) {
        match outcome {
            Ok(()) => {
                office.attempts().forget(self.attempt);
                if self.held || self.is_handed_over {
                    office.note_release(&self.key, self.is_handed_over);
                }
            }
            Err(error) => {
                tracing::debug!(key = %self.key, %error, "a release is still owed");
                office.attempts().owe(self.attempt);
                patrol::look_after_waiters(office);
            }
        }
    }
}
