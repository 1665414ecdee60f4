//! Commands, and the transaction that takes several of them along.

use std::sync::Arc;

use lock_core::Result;
use lock_core::clock::Instant;

use crate::database::Database;
use crate::news::News;
use crate::office::Office;
use crate::session::Session;

/// Something to be done in the database.
pub(crate) trait Command: Send {
    /// Does it in a single statement outside a transaction, if that is possible. Says whether it is
    /// done.
    fn run_alone(&mut self, _database: &Database, _session: &Session) -> rusqlite::Result<bool> {
        Ok(false)
    }

    /// Does it inside a transaction, which an error rolls back. May be called again then.
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()>;

    /// The transaction is over; with an error nothing was changed.
    fn settle(&mut self, _office: &Arc<Office>, _outcome: &Result<()>) {}
}

/// A transaction at work.
pub(crate) struct Work<'a> {
    pub(crate) database: &'a Database,
    pub(crate) session: &'a Session,
    /// Read with the database locked, so that no later transaction has an earlier time.
    pub(crate) now: Instant,
    pub(crate) news: News,
}

impl Work<'_> {
    /// The end of a lease that begins now.
    pub(crate) fn expires(&self, ttl: Option<i64>) -> Option<i64> {
        ttl.map(|ttl| (self.now.as_nanos() as i64).saturating_add(ttl))
    }
}

/// Runs one command, in a single statement where it can be.
pub(crate) fn run_one(
    database: &Database,
    session: &Session,
    command: &mut dyn Command,
) -> rusqlite::Result<News> {
    if command.run_alone(database, session)? {
        return Ok(News::new());
    }
    run_all(database, session, std::iter::once(command))
}

/// Runs commands in one transaction: all of them, or none.
pub(crate) fn run_all<'a, 'b: 'a>(
    database: &Database,
    session: &Session,
    commands: impl Iterator<Item = &'a mut (dyn Command + 'b)>,
) -> rusqlite::Result<News> {
    let transaction = database.begin()?;
    let mut work = Work {
        database,
        session,
        now: Instant::now(),
        news: News::new(),
    };
    for command in commands {
        command.run(&mut work)?;
    }
    transaction.commit()?;
    Ok(work.news)
}
