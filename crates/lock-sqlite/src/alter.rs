//! Changing a grant in place: downgrade, transfer, renewal.

use lock_core::clock::Instant;
use lock_core::{LockKey, Mode, OwnerId, OwnerToken, Renewal};
use rusqlite::params;

use crate::batch::{Command, Work};
use crate::line::Line;
use crate::news::{Claim, Seat};
use crate::sql;

/// Exclusive to shared.
#[derive(Debug)]
pub(crate) struct Downgrade {
    pub(crate) key: LockKey,
    pub(crate) attempt: OwnerToken,
    /// `None`: it does not hold exclusively. `Err`: a mode in the way.
    pub(crate) outcome: Option<Result<Claim, Mode>>,
}

impl Command for Downgrade {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        let seat = seat(work, self.attempt);
        self.outcome = None;
        if let Some(mut line) = Line::open(work, self.key.qualified())? {
            self.outcome = line.downgrade(seat)?;
            line.save()?;
        }
        Ok(())
    }
}

/// Another owner answers for a hold, or the same one as before.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) key: LockKey,
    pub(crate) attempt: OwnerToken,
    pub(crate) owner: Option<OwnerId>,
    pub(crate) held: bool,
}

impl Command for Transfer {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        let seat = seat(work, self.attempt);
        let (key, owner) = (
            self.key.qualified(),
            self.owner.map(|owner| owner.to_string()),
        );
        let changed = params![key, seat.session, seat.attempt as i64, owner];
        self.held = work.database.execute(sql::TRANSFER_HOLDER, changed)? == 1
            || work.database.execute(sql::TRANSFER_PARTY, changed)? == 1;
        Ok(())
    }
}

/// Renews leases.
#[derive(Debug)]
pub(crate) struct Renew {
    pub(crate) batch: Vec<Renewal>,
    /// `None`: that one is gone.
    pub(crate) until: Vec<Option<Instant>>,
}

impl Command for Renew {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.until.clear();
        let now = work.now.as_nanos() as i64;
        for Renewal {
            key, lease, ttl, ..
        } in &self.batch
        {
            let seat = seat(work, *lease);
            let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
            let expires = now.saturating_add(ttl);
            let (session, attempt) = (seat.session, seat.attempt as i64);
            let renewed = params![key.qualified(), session, attempt, ttl, expires, now];
            let held = work.database.execute(sql::RENEW_HOLDER, renewed)? == 1
                || work.database.execute(sql::RENEW_PARTY, renewed)? == 1;
            let until = Instant::from_nanos(expires as u64);
            self.until.push(held.then_some(until));
        }
        Ok(())
    }
}

fn seat(work: &Work<'_>, attempt: OwnerToken) -> Seat {
    Seat {
        session: work.session.id(),
        attempt: attempt.counter(),
    }
}
