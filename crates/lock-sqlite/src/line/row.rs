//! The row of a key, and the rows of its parties.

use lock_core::Mode;
use rusqlite::params;

use super::{Removed, read_mode, write_mode};
use crate::database::Database;
use crate::news::Seat;
use crate::sql;

/// Somebody who asks, waits or holds.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) seat: Seat,
    pub(crate) mode: Mode,
    pub(crate) priority: i8,
    /// Of a waiter.
    pub(crate) rank: i64,
    pub(crate) arrival: i64,
    pub(crate) since: i64,
    pub(crate) ttl: Option<i64>,
    pub(crate) owner: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) record: Option<Vec<u8>>,
}

impl Party {
    /// Reads what `head.sql` selects.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seat: Seat {
                session: row.get(0)?,
                attempt: row.get::<_, i64>(1)? as u64,
            },
            mode: read_mode(row.get(2)?, row.get(3)?, row.get(4)?),
            priority: row.get(5)?,
            rank: row.get(6)?,
            arrival: row.get(7)?,
            since: 0,
            ttl: row.get(8)?,
            owner: row.get(9)?,
            label: row.get(10)?,
            record: row.get(11)?,
        })
    }
}

/// The row of a key.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) token: i64,
    exclusive: Exclusive,
    pub(super) parties: u32,
    pub(super) waiting: u32,
    pub(super) used: u32,
    crowd: u32,
    /// What the crowd has in common.
    crowd_mode: Mode,
    arrivals: i64,
    is_changed: bool,
}

/// The exclusive holder.
#[derive(Debug)]
enum Exclusive {
    /// As it stands in the row.
    As(Option<(Seat, Option<i64>)>),
    /// It has gone.
    Vacated,
    /// There is another one, with the end of its lease.
    Taken(Box<(Party, Option<i64>)>),
}

impl Row {
    pub(super) fn read(database: &Database, key: &str) -> rusqlite::Result<Option<Self>> {
        database.first(sql::KEY, (key, database.floor()), |row| {
            let session: Option<i64> = row.get(1)?;
            let holder = match session {
                None => None,
                Some(session) => {
                    let attempt = row.get::<_, i64>(2)? as u64;
                    Some((Seat { session, attempt }, row.get(3)?))
                }
            };
            let of: u32 = row.get(9)?;
            Ok(Self {
                token: row.get(0)?,
                exclusive: Exclusive::As(holder),
                parties: row.get(4)?,
                waiting: row.get(5)?,
                used: row.get(6)?,
                crowd: row.get(7)?,
                crowd_mode: read_mode(row.get(8)?, of, of),
                arrivals: row.get(10)?,
                is_changed: false,
            })
        })
    }

    pub(super) fn save(&self, database: &Database, key: &str) -> rusqlite::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let (kind, _, of) = write_mode(self.crowd_mode);
        let (token, parties, waiting) = (self.token, self.parties, self.waiting);
        let (used, crowd, arrivals) = (self.used, self.crowd, self.arrivals);
        let saved = match &self.exclusive {
            Exclusive::As(_) => database.execute(
                sql::SAVE_KEY,
                params![
                    key, token, parties, waiting, used, crowd, kind, of, arrivals
                ],
            ),
            Exclusive::Vacated => database.execute(
                sql::SAVE_VACANT_KEY,
                params![
                    key, token, parties, waiting, used, crowd, kind, of, arrivals
                ],
            ),
            Exclusive::Taken(taken) => {
                let (party, expires) = &**taken;
                database.execute(
                    sql::SAVE_TAKEN_KEY,
                    params![
                        key,
                        token,
                        parties,
                        waiting,
                        used,
                        crowd,
                        kind,
                        of,
                        arrivals,
                        party.seat.session,
                        party.seat.attempt as i64,
                        party.priority,
                        party.since,
                        party.ttl,
                        expires,
                        party.owner,
                        party.label,
                        party.record,
                    ],
                )
            }
        };
        saved.map(drop)
    }

    pub(super) fn exclusive_seat(&self) -> Option<Seat> {
        match &self.exclusive {
            Exclusive::As(holder) => holder.map(|(seat, _)| seat),
            Exclusive::Vacated => None,
            Exclusive::Taken(taken) => Some(taken.0.seat),
        }
    }

    pub(super) fn exclusive_expires(&self) -> Option<i64> {
        match &self.exclusive {
            Exclusive::As(holder) => holder.and_then(|(_, expires)| expires),
            Exclusive::Vacated => None,
            Exclusive::Taken(taken) => taken.1,
        }
    }

    /// Whether the holders leave room for one more of this mode.
    pub(super) fn fits(&self, mode: Mode) -> bool {
        if self.exclusive_seat().is_some() {
            return false;
        }
        if self.used == 0 {
            return true;
        }
        match (self.crowd_mode, mode) {
            (Mode::Shared, Mode::Shared) => true,
            (Mode::Permit(_), Mode::Permit(wanted)) => {
                wanted.of().saturating_sub(self.used) >= wanted.count()
            }
            _ => false,
        }
    }

    /// The mode of all who are not exclusive, holders and waiters, if there are any.
    pub(super) fn crowd_mode(&self) -> Option<Mode> {
        (self.crowd > 0).then_some(self.crowd_mode)
    }

    /// The exclusive holder goes.
    pub(super) fn vacate(&mut self) {
        self.is_changed = true;
        self.exclusive = Exclusive::Vacated;
    }

    /// There is another exclusive holder, with the next number.
    pub(super) fn take(&mut self, party: Party, expires: Option<i64>) {
        self.is_changed = true;
        self.token += 1;
        self.exclusive = Exclusive::Taken(Box::new((party, expires)));
    }

    /// Counts a shared holder, or permits that are held.
    pub(super) fn join(&mut self, count: u32) {
        self.is_changed = true;
        self.used += count;
    }

    /// Counts a party that gets a row of its own, and numbers it.
    pub(super) fn arrive(&mut self, mode: Mode) -> i64 {
        self.is_changed = true;
        self.parties += 1;
        if mode != Mode::Exclusive {
            self.crowd += 1;
            self.crowd_mode = mode;
        }
        self.arrivals += 1;
        self.arrivals
    }

    /// Counts a party whose row is gone.
    pub(super) fn subtract(&mut self, waiting: bool, mode: Mode) -> Removed {
        self.is_changed = true;
        self.parties = self.parties.saturating_sub(1);
        if mode != Mode::Exclusive {
            self.crowd = self.crowd.saturating_sub(1);
        }
        if waiting {
            self.waiting = self.waiting.saturating_sub(1);
            return Removed::Waiter;
        }
        let count = match mode {
            Mode::Permit(permits) => permits.count(),
            Mode::Exclusive | Mode::Shared => 1,
        };
        self.used = self.used.saturating_sub(count);
        Removed::Holder
    }
}
