//! Sessions that begin and end, and what dead ones and idle keys leave behind.

use std::path::Path;

use lock_core::{ErrorKind, ProcessNonce, ProcessRecord, Result};
use rusqlite::{Connection, params};

use crate::batch::{Command, Work};
use crate::database::Database;
use crate::error::{error, failed};
use crate::line::Line;
use crate::location::Location;
use crate::{schema, session, sql};

/// More grants than a power cut can take along: the log that was not copied back holds some
/// thousand transactions.
const GRANTS_IN_DOUBT: i64 = 1 << 24;

/// Enters this process's session, and removes what dead ones left.
#[derive(Debug)]
pub(crate) struct Enrol<'a> {
    location: &'a Location,
    outcome: Result<()>,
    buried: Vec<i64>,
}

impl<'a> Enrol<'a> {
    pub(crate) fn new(location: &'a Location) -> Self {
        Self {
            location,
            outcome: Ok(()),
            buried: Vec::new(),
        }
    }

    /// Whether the database is still what was opened.
    pub(crate) fn outcome(&self) -> Result<()> {
        self.outcome.clone()
    }

    /// The dead, whose files are to be removed now.
    pub(crate) fn buried(&self) -> Vec<i64> {
        self.buried.clone()
    }
}

impl Command for Enrol<'_> {
    fn run_alone(
        &mut self,
        database: &Database,
        _session: &session::Session,
    ) -> rusqlite::Result<bool> {
        // On its own, for it has to reach the disk.
        raise_floor_after_boot(database)?;
        Ok(false)
    }

    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.outcome = schema::check_version(work.database.connection(), self.location);
        if self.outcome.is_err() {
            return Ok(());
        }
        work.database.read_floor()?;
        self.buried = bury_dead(work)?;
        let process = ProcessRecord::of_this_process();
        let row = params![
            work.session.id(),
            ProcessNonce::current().to_bits().to_be_bytes(),
            process.pid,
            process.host,
            process.boot_id,
            process.pid_namespace,
        ];
        work.database.execute(sql::INSERT_SESSION, row).map(drop)
    }
}

/// After a boot the floor is raised once, and on the disk before any number above it is given out.
fn raise_floor_after_boot(database: &Database) -> rusqlite::Result<()> {
    let boot = &ProcessRecord::of_this_process().boot_id;
    let known = "SELECT boot FROM lock_store";
    let known: Option<String> = database.first(known, (), |row| row.get(0))?;
    if known.as_ref() == Some(boot) && !boot.is_empty() {
        return Ok(());
    }
    let connection = database.connection();
    connection.pragma_update(None, "synchronous", "full")?;
    let raised = params![boot, GRANTS_IN_DOUBT, schema::wall_micros()];
    let raised = database.execute(sql::NEW_BOOT, raised);
    connection.pragma_update(None, "synchronous", "normal")?;
    raised.map(drop)
}

/// Removes dead sessions with everything they hold and wait for.
fn bury_dead(work: &mut Work<'_>) -> rusqlite::Result<Vec<i64>> {
    let ids = "SELECT id FROM lock_session";
    let mut ids: Vec<i64> = work.database.all(ids, (), |row| row.get(0))?;
    ids.retain(|id| !work.session.is_alive(*id));
    for &id in &ids {
        let keys: Vec<String> = work
            .database
            .all(sql::KEYS_OF_SESSION, [id], |row| row.get(0))?;
        for key in keys {
            if let Some(mut line) = Line::open(work, &key)? {
                line.bury(id)?;
                line.admit()?;
                line.save()?;
            }
        }
        resign(work.database, id)?;
    }
    Ok(ids)
}

/// Removes a session that has nothing any more.
pub(crate) fn resign(database: &Database, id: i64) -> rusqlite::Result<()> {
    let gone = "DELETE FROM lock_session WHERE id = ?1";
    database.execute(gone, [id]).map(drop)
}

/// Removes the files of dead sessions.
pub(crate) fn remove_files(directory: &Path, dead: &[i64]) {
    for &id in dead {
        session::remove_files(directory, id);
    }
}

/// Before a migration: nobody may use the old format while it changes.
pub(crate) fn refuse_if_in_use(connection: &Connection, location: &Location) -> Result<()> {
    let sqlite = |source| failed(&location.database, source);
    let mut ids = connection
        .prepare("SELECT id FROM lock_session")
        .map_err(sqlite)?;
    let ids = ids.query_map([], |row| row.get(0)).map_err(sqlite)?;
    let ids: Vec<i64> = ids.collect::<rusqlite::Result<_>>().map_err(sqlite)?;
    if ids
        .iter()
        .any(|id| session::is_alive(&location.sessions, *id))
    {
        let message = format!(
            "{} is of an earlier format and in use; stop the programs of the earlier release first",
            location.database.display()
        );
        return Err(error(ErrorKind::Unavailable, message));
    }
    Ok(())
}

/// Forgets dead sessions and keys that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    pub(crate) keys: usize,
    pub(crate) buried: Vec<i64>,
}

impl Command for Sweep {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.buried = bury_dead(work)?;
        work.database.execute(sql::RAISE_FLOOR, ())?;
        self.keys = work.database.execute(sql::DELETE_IDLE_KEYS, ())?;
        Ok(())
    }
}
