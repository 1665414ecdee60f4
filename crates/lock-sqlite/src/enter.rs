//! Asking for a key.

use std::sync::Arc;
use std::time::Duration;

use lock_core::{ErrorKind, Grant, Handoff, LockKey, Mode, Request, Result, Wait};
use rusqlite::params;

use crate::batch::{Command, Work};
use crate::database::Database;
use crate::error::{error, mode_conflict};
use crate::line::{Entered, Line, Party};
use crate::news::{Claim, Seat};
use crate::office::Office;
use crate::session::Session;
use crate::sql;

/// Where a waiter finds its grant.
pub(crate) type Place = Arc<Handoff<Result<Option<Grant>>>>;

/// Asks for a key.
#[derive(Debug)]
pub(crate) struct Enter {
    key: LockKey,
    request: Request,
    ttl: Option<Duration>,
    since: i64,
    queues: bool,
    /// The claim of a free key failed a moment ago.
    tried: bool,
    entered: Option<Entered>,
}

impl Enter {
    pub(crate) fn new(key: &LockKey, request: &Request, ttl: Option<Duration>) -> Self {
        Self {
            key: key.clone(),
            request: request.clone(),
            ttl,
            since: wall_now(),
            queues: false,
            tried: false,
            entered: None,
        }
    }

    /// From now on it is queued when the key is not free.
    pub(crate) fn queue_up(&mut self) {
        self.queues = true;
    }

    /// What became of it: a claim, `None` for contended, or a refusal.
    pub(crate) fn claimed(&self) -> Result<Option<Claim>> {
        match self.entered {
            Some(Entered::Granted(claim)) => Ok(Some(claim)),
            Some(Entered::Conflict(other)) => {
                Err(mode_conflict(&self.key, self.request.mode, other))
            }
            Some(Entered::Queued | Entered::Contended) => Ok(None),
            None => Err(error(ErrorKind::Backend, "a command was not run")),
        }
    }

    pub(crate) fn key(&self) -> &LockKey {
        &self.key
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// The life of the lease.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    fn ttl_nanos(&self) -> Option<i64> {
        let nanos = |ttl: Duration| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
        self.ttl.map(nanos)
    }

    /// Takes a key that was used before, and that nobody uses: the whole of an uncontended acquire.
    fn claim(
        &self,
        database: &Database,
        session: &Session,
        expires: Option<i64>,
    ) -> rusqlite::Result<Option<Claim>> {
        let request = &self.request;
        let holder = params![
            self.key.qualified(),
            database.floor(),
            session.id(),
            request.attempt.counter() as i64,
            request.priority,
            self.since,
            self.ttl_nanos(),
            expires,
            request.owner.map(|owner| owner.to_string()),
            request.label.as_deref(),
            request.record.as_deref(),
        ];
        let base = database.noted(sql::CLAIM, holder)?;
        Ok(base.map(|base| Claim::exclusive(base, expires)))
    }

    fn party(&self, session: &Session) -> Party {
        let request = &self.request;
        Party {
            seat: Seat {
                session: session.id(),
                attempt: request.attempt.counter(),
            },
            mode: request.mode,
            priority: request.priority,
            rank: request.priority.into(),
            arrival: 0,
            since: self.since,
            ttl: self.ttl_nanos(),
            owner: request.owner.map(|owner| owner.to_string()),
            label: request.label.as_deref().map(str::to_owned),
            record: request.record.as_deref().map(<[u8]>::to_vec),
        }
    }
}

impl Command for Enter {
    fn run_alone(&mut self, database: &Database, session: &Session) -> rusqlite::Result<bool> {
        // The end of a lease needs the time with the database locked. A queue needs more statements.
        if self.request.mode != Mode::Exclusive || self.ttl.is_some() || self.queues {
            return Ok(false);
        }
        self.tried = true;
        let claim = self.claim(database, session, None)?;
        self.entered = Some(claim.map_or(Entered::Contended, Entered::Granted));
        // What may wait is not asked twice: it goes to the queue next.
        Ok(claim.is_some() || self.request.wait != Wait::Now)
    }

    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        if self.request.mode == Mode::Exclusive && !self.tried {
            let expires = work.expires(self.ttl_nanos());
            if let Some(claim) = self.claim(work.database, work.session, expires)? {
                self.entered = Some(Entered::Granted(claim));
                return Ok(());
            }
        }
        let party = self.party(work.session);
        let mut line = Line::open_or_new(work, self.key.qualified())?;
        self.entered = Some(line.enter(&party, self.queues)?);
        line.save()
    }

    fn settle(&mut self, office: &Arc<Office>, outcome: &Result<()>) {
        let attempt = self.request.attempt;
        let claimed = outcome.clone().and_then(|()| self.claimed());
        let answer = match claimed {
            Ok(Some(claim)) => return office.attempts().grant(attempt, claim),
            Ok(None) if matches!(self.entered, Some(Entered::Queued)) => {
                return office.attempts().queue(attempt);
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        office.attempts().turn_away(attempt, answer);
    }
}

/// Microseconds of the wall clock, for people.
pub(crate) fn wall_now() -> i64 {
    (lock_core::clock::coarse_wall_nanos() / 1_000) as i64
}
