//! One key in the database: who holds it, who waits, who is next.
//!
//! The rules are those of [`KeyQueue`](lock_core::KeyQueue), kept in rows. Every step is a look-up,
//! however many wait.

mod mode;
mod row;

use lock_core::{BYPASS_LIMIT, Mode};
use rusqlite::params;

use crate::batch::Work;
use crate::news::{Claim, Item, Seat};
use crate::sql;
pub(crate) use mode::{read_mode, write_mode};
pub(crate) use row::Party;
use row::Row;

/// Above every priority: where waiters go that were bypassed too often.
const AGED: i64 = i8::MAX as i64 + 1;

/// One key, inside a transaction. [`save`](Self::save) it at the end.
pub(crate) struct Line<'l, 'w> {
    work: &'l mut Work<'w>,
    key: &'l str,
    row: Row,
}

/// What became of a party that asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entered {
    Granted(Claim),
    Queued,
    Contended,
    Conflict(Mode),
}

enum Admission {
    Enters,
    Waits,
    Conflicts(Mode),
}

/// What a party was that has been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Holder,
    Waiter,
}

impl<'l, 'w> Line<'l, 'w> {
    /// `None`: the key was never used, or was swept.
    pub(crate) fn open(work: &'l mut Work<'w>, key: &'l str) -> rusqlite::Result<Option<Self>> {
        let row = Row::read(work.database, key)?;
        Ok(row.map(|row| Self { work, key, row }))
    }

    pub(crate) fn open_or_new(work: &'l mut Work<'w>, key: &'l str) -> rusqlite::Result<Self> {
        let row = match Row::read(work.database, key)? {
            Some(row) => row,
            None => {
                work.database.execute(sql::NEW_KEY, [key])?;
                Row::read(work.database, key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?
            }
        };
        Ok(Self { work, key, row })
    }

    /// Writes the key's row back, if it has changed.
    pub(crate) fn save(self) -> rusqlite::Result<()> {
        self.row.save(self.work.database, self.key)
    }

    /// Lets a party in, queues it if it waits, or says why not. Whoever is in the way and has died is
    /// removed first.
    pub(crate) fn enter(&mut self, party: &Party, waits: bool) -> rusqlite::Result<Entered> {
        let mut admission = self.admits(party)?;
        if !matches!(admission, Admission::Enters) && self.remove_gone()? {
            self.admit()?;
            admission = self.admits(party)?;
        }
        match admission {
            Admission::Enters => {
                self.count_bypass(party.priority.into(), i64::MAX)?;
                self.hold(party).map(Entered::Granted)
            }
            Admission::Waits if waits => {
                self.enqueue(party)?;
                Ok(Entered::Queued)
            }
            Admission::Waits => Ok(Entered::Contended),
            Admission::Conflicts(other) => Ok(Entered::Conflict(other)),
        }
    }

    /// Whether it has an exclusive holder.
    pub(crate) fn is_taken(&self) -> bool {
        self.row.exclusive_seat().is_some()
    }

    fn admits(&self, party: &Party) -> rusqlite::Result<Admission> {
        if let Some(other) = self
            .row
            .crowd_mode()
            .filter(|other| other.conflicts_with(party.mode))
        {
            return Ok(Admission::Conflicts(other));
        }
        if !self.row.fits(party.mode) {
            return Ok(Admission::Waits);
        }
        let overtakes_nobody = match self.row.waiting {
            0 => true,
            _ => self
                .head()?
                .is_none_or(|head| i64::from(party.priority) > head.rank),
        };
        Ok(if overtakes_nobody {
            Admission::Enters
        } else {
            Admission::Waits
        })
    }

    /// Lets in the waiters at the head that fit. Those that have died are removed.
    pub(crate) fn admit(&mut self) -> rusqlite::Result<()> {
        while self.row.waiting > 0 && self.row.exclusive_seat().is_none() {
            let Some(head) = self.head()? else { break };
            if !self.row.fits(head.mode) {
                break;
            }
            if !self.work.session.is_alive(head.seat.session) {
                self.bury(head.seat.session)?;
                continue;
            }
            let (rank, arrival, seat) = (head.rank, head.arrival, head.seat);
            let claim = self.promote(head)?;
            self.work.news.push((seat, Item::Granted(claim)));
            self.count_bypass(rank, arrival)?;
        }
        Ok(())
    }

    fn head(&self) -> rusqlite::Result<Option<Party>> {
        self.work.database.first(sql::HEAD, [self.key], Party::read)
    }

    fn enqueue(&mut self, party: &Party) -> rusqlite::Result<()> {
        let arrival = self.row.arrive(party.mode);
        self.row.waiting += 1;
        self.insert(party, true, None, arrival, None)
    }

    /// Makes a newcomer a holder.
    fn hold(&mut self, party: &Party) -> rusqlite::Result<Claim> {
        let expires = self.work.expires(party.ttl);
        if party.mode == Mode::Exclusive {
            return Ok(self.take(party.clone(), expires));
        }
        let (claim, slot) = self.join(party.mode, expires)?;
        let arrival = self.row.arrive(party.mode);
        self.insert(party, false, slot, arrival, expires)?;
        Ok(claim)
    }

    /// Makes a waiter a holder.
    fn promote(&mut self, head: Party) -> rusqlite::Result<Claim> {
        let expires = self.work.expires(head.ttl);
        let (session, attempt) = (head.seat.session, head.seat.attempt as i64);
        self.row.waiting -= 1;
        if head.mode == Mode::Exclusive {
            let found = (self.key, session, attempt);
            self.work.database.execute(sql::DELETE_WAITER, found)?;
            self.row.parties -= 1;
            return Ok(self.take(head, expires));
        }
        let (claim, slot) = self.join(head.mode, expires)?;
        let since = crate::enter::wall_now();
        let changed = params![self.key, session, attempt, slot, since, expires];
        self.work.database.execute(sql::GRANT_PARTY, changed)?;
        Ok(claim)
    }

    /// The key has a new exclusive holder, with the next number.
    fn take(&mut self, mut party: Party, expires: Option<i64>) -> Claim {
        party.since = crate::enter::wall_now();
        self.row.take(party, expires);
        Claim::exclusive(self.row.token, expires)
    }

    /// Counts one more shared or permit holder.
    fn join(&mut self, mode: Mode, expires: Option<i64>) -> rusqlite::Result<(Claim, Option<u32>)> {
        let Mode::Permit(permits) = mode else {
            self.row.join(1);
            return Ok((Claim::shared(self.row.token, expires), None));
        };
        let taken: Vec<u32> = self
            .work
            .database
            .all(sql::SLOTS, [self.key], |row| row.get(0))?;
        let free = (0..permits.of()).find(|slot| !taken.contains(slot));
        let slot = free.unwrap_or_default();
        self.row.join(permits.count());
        Ok((Claim::permit(slot, expires), Some(slot)))
    }

    fn insert(
        &self,
        party: &Party,
        waiting: bool,
        slot: Option<u32>,
        arrival: i64,
        expires: Option<i64>,
    ) -> rusqlite::Result<()> {
        let (kind, count, of) = write_mode(party.mode);
        let row = params![
            self.key,
            party.seat.session,
            party.seat.attempt as i64,
            waiting,
            kind,
            count,
            of,
            slot,
            party.priority,
            arrival,
            party.since,
            party.ttl,
            expires,
            party.owner,
            party.label,
            party.record,
        ];
        self.work.database.execute(sql::INSERT_PARTY, row).map(drop)
    }

    /// Removes a party, whatever it is. The next ones are let in by [`admit`](Self::admit).
    pub(crate) fn remove(&mut self, seat: Seat) -> rusqlite::Result<Option<Removed>> {
        if self.row.exclusive_seat() == Some(seat) {
            self.row.vacate();
            return Ok(Some(Removed::Holder));
        }
        let found = (self.key, seat.session, seat.attempt as i64);
        let gone = self
            .work
            .database
            .first(sql::DELETE_PARTY, found, read_gone)?;
        Ok(gone.map(|(waiting, mode)| self.row.subtract(waiting, mode)))
    }

    /// Removes all parties of a session.
    pub(crate) fn bury(&mut self, session: i64) -> rusqlite::Result<()> {
        if self
            .row
            .exclusive_seat()
            .is_some_and(|seat| seat.session == session)
        {
            self.row.vacate();
        }
        let of_session = (self.key, session);
        let gone = self
            .work
            .database
            .all(sql::DELETE_PARTIES_OF_SESSION, of_session, read_gone)?;
        for (waiting, mode) in gone {
            self.row.subtract(waiting, mode);
        }
        Ok(())
    }

    /// Removes who is in the way and has died, or whose lease is over. Says whether anybody was.
    pub(crate) fn remove_gone(&mut self) -> rusqlite::Result<bool> {
        let mut any = false;
        let now = self.work.now.as_nanos() as i64;
        if let Some(seat) = self.row.exclusive_seat() {
            // Nobody else holds, and whoever waits is looked at when it is let in.
            if !self.work.session.is_alive(seat.session) {
                self.bury(seat.session)?;
                any = true;
            } else if self.row.exclusive_expires().is_some_and(|end| end < now) {
                self.revoke(seat)?;
                any = true;
            }
            return Ok(any);
        }
        let mut before = 0;
        while let Some(session) = self.next_session(before)? {
            before = session;
            if !self.work.session.is_alive(session) {
                self.bury(session)?;
                any = true;
            }
        }
        let seat = |row: &rusqlite::Row<'_>| {
            Ok(Seat {
                session: row.get(0)?,
                attempt: row.get::<_, i64>(1)? as u64,
            })
        };
        let expired = (self.key, now);
        for seat in self
            .work
            .database
            .all(sql::EXPIRED_PARTIES, expired, seat)?
        {
            self.revoke(seat)?;
            any = true;
        }
        Ok(any)
    }

    fn next_session(&self, after: i64) -> rusqlite::Result<Option<i64>> {
        let next = self
            .work
            .database
            .first(sql::NEXT_SESSION, (self.key, after), |row| row.get(0))?;
        Ok(next.flatten())
    }

    /// Takes a holder's hold away, and lets it know.
    pub(crate) fn revoke(&mut self, seat: Seat) -> rusqlite::Result<bool> {
        let held = self.remove(seat)? == Some(Removed::Holder);
        if held {
            self.work.news.push((seat, Item::Revoked));
        }
        Ok(held)
    }

    /// The exclusive holder becomes a shared one. `Err` of the inner result: somebody waits for a mode
    /// that shared ones never take turns with. `None`: it does not hold exclusively.
    pub(crate) fn downgrade(
        &mut self,
        seat: Seat,
    ) -> rusqlite::Result<Option<Result<Claim, Mode>>> {
        if self.row.exclusive_seat() != Some(seat) {
            return Ok(None);
        }
        if let Some(other) = self
            .row
            .crowd_mode()
            .filter(|other| other.conflicts_with(Mode::Shared))
        {
            return Ok(Some(Err(other)));
        }
        let expires = self.row.exclusive_expires();
        let arrival = self.row.arrive(Mode::Shared);
        let moved = (self.key, arrival);
        self.work.database.execute(sql::DOWNGRADE_HOLDER, moved)?;
        self.row.vacate();
        self.row.join(1);
        self.admit()?;
        Ok(Some(Ok(Claim::shared(self.row.token, expires))))
    }

    /// A party of this rank that came as `arrival` was let in before the waiters of lower ranks.
    fn count_bypass(&self, rank: i64, arrival: i64) -> rusqlite::Result<()> {
        if self.row.waiting == 0 {
            return Ok(());
        }
        let lower = self
            .work
            .database
            .first(sql::LOWER_RANK_WAITS, (self.key, rank), |row| row.get(0))?;
        if lower != Some(true) {
            return Ok(());
        }
        let bypassed = (self.key, rank, arrival, BYPASS_LIMIT, AGED);
        self.work.database.execute(sql::AGE, bypassed).map(drop)
    }
}

fn read_gone(row: &rusqlite::Row<'_>) -> rusqlite::Result<(bool, Mode)> {
    // The maximum of permits changes nothing here.
    let count: u32 = row.get(2)?;
    Ok((row.get(0)?, read_mode(row.get(1)?, count, count)))
}
