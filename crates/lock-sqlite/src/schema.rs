//! Recognising a database, and making the tables.

use lock_core::{ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::config::{ApplicationDatabase, SqliteConfig};
use crate::error::{error, failed};
use crate::location::Location;
use crate::sql;

/// What brings a database from one format to the next; the first one makes it.
const STEPS: &[&str] = &[sql::SCHEMA];

/// The format that this release reads and writes.
const VERSION: i64 = STEPS.len() as i64;

/// Looks at the database and makes or migrates the tables. One that is refused stays as it was.
pub(crate) fn prepare(
    connection: &Connection,
    config: &SqliteConfig,
    location: &Location,
    boot: &str,
) -> Result<()> {
    bring_to(STEPS, connection, config, location, boot)
}

fn bring_to(
    steps: &[&str],
    connection: &Connection,
    config: &SqliteConfig,
    location: &Location,
    boot: &str,
) -> Result<()> {
    let sqlite = |source| failed(&location.database, source);
    let version = steps.len() as i64;
    let found = look(connection).map_err(sqlite)?;
    check(&found, version, config, location)?;
    if found.journal_is_wal && found.version == Some(version) {
        return Ok(());
    }
    if !found.journal_is_wal {
        if config.application_database == ApplicationDatabase::Refuse {
            // Without effect unless the file is empty.
            connection
                .pragma_update(None, "page_size", crate::database::PAGE)
                .map_err(sqlite)?;
        }
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(sqlite)?;
    }
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(sqlite)?;
    let made = make(steps, connection, config, location, boot);
    let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).map_err(sqlite);
    made.and(ended)
}

/// Inside a transaction: others may have been faster.
fn make(
    steps: &[&str],
    connection: &Connection,
    config: &SqliteConfig,
    location: &Location,
    boot: &str,
) -> Result<()> {
    let sqlite = |source| failed(&location.database, source);
    let version = steps.len() as i64;
    let found = look(connection).map_err(sqlite)?;
    check(&found, version, config, location)?;
    let from = found.version.unwrap_or(0);
    if from > 0 && from < version {
        crate::sweep::refuse_if_in_use(connection, location)?;
    }
    for step in steps.iter().skip(from as usize) {
        connection.execute_batch(step).map_err(sqlite)?;
    }
    if from == 0 {
        let first = "INSERT INTO lock_store (only, version, boot, floor) VALUES (1, ?1, ?2, ?3)";
        connection
            .execute(first, (version, boot, wall_micros()))
            .map_err(sqlite)?;
    } else if from < version {
        connection
            .execute("UPDATE lock_store SET version = ?1", [version])
            .map_err(sqlite)?;
    }
    Ok(())
}

/// Refuses a database that is not, or no longer, of this release's format.
pub(crate) fn check_version(connection: &Connection, location: &Location) -> Result<()> {
    let sqlite = |source| failed(&location.database, source);
    match look(connection).map_err(sqlite)?.version {
        Some(VERSION) => Ok(()),
        Some(other) => Err(another_version(other, location)),
        None => Err(error(
            ErrorKind::Unavailable,
            format!("{}: the tables were dropped", location.database.display()),
        )),
    }
}

struct Found {
    journal_is_wal: bool,
    /// `None`: no tables of ours.
    version: Option<i64>,
    /// A table that is not ours.
    foreign: Option<String>,
}

fn look(connection: &Connection) -> rusqlite::Result<Found> {
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let foreign = "SELECT name FROM sqlite_schema
                   WHERE name NOT LIKE 'lock\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                   LIMIT 1";
    let foreign = connection
        .query_row(foreign, [], |row| row.get(0))
        .optional()?;
    let ours = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'lock_store'";
    let version = match connection.query_row(ours, [], |_| Ok(())).optional()? {
        Some(()) => {
            let version = "SELECT version FROM lock_store";
            connection
                .query_row(version, [], |row| row.get(0))
                .optional()?
        }
        None => None,
    };
    Ok(Found {
        journal_is_wal: journal == "wal",
        version,
        foreign,
    })
}

fn check(found: &Found, version: i64, config: &SqliteConfig, location: &Location) -> Result<()> {
    let shown = location.database.display();
    if let Some(other) = found.version
        && other > version
    {
        return Err(another_version(other, location));
    }
    match config.application_database {
        ApplicationDatabase::Refuse => {
            if let Some(table) = &found.foreign {
                let message = format!(
                    "{shown} has a table `{table}` that is not of this library; set another `path`, or \
                     `application_database = \"allow\"` to keep locks in it"
                );
                return Err(error(ErrorKind::InvalidConfig, message));
            }
        }
        ApplicationDatabase::Allow => {
            if !found.journal_is_wal && (found.foreign.is_some() || found.version.is_some()) {
                let message = format!(
                    "{shown} is not in WAL mode; run `PRAGMA journal_mode = WAL` on it once"
                );
                return Err(error(ErrorKind::InvalidConfig, message));
            }
        }
    }
    Ok(())
}

fn another_version(version: i64, location: &Location) -> lock_core::Error {
    error(
        ErrorKind::InvalidConfig,
        format!(
            "{} has format {version}, this program knows {VERSION}; run programs of one release on \
             one database",
            location.database.display()
        ),
    )
}

/// Microseconds of the wall clock since the start of 2024, which fit a fencing base until 2095: a new
/// database starts above one that was deleted, unless the clock was set back.
pub(crate) fn wall_micros() -> i64 {
    const START_OF_2024: u64 = 1_704_067_200;
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH + std::time::Duration::from_secs(START_OF_2024));
    let micros = since.map_or(0, |since| since.as_micros() as i64);
    // A clock that is decades ahead must not use the numbers up.
    const HALF_OF_ALL: i64 = 1 << 50;
    if micros < HALF_OF_ALL { micros } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use lock_core::{FencingToken, Lock, LockKey};

    use super::*;
    use crate::SqliteBackend;

    /// What a release of the future would do first.
    fn open_by_a_newer_release(config: &SqliteConfig) -> Result<()> {
        let steps = [STEPS, &["ALTER TABLE lock_key ADD COLUMN note TEXT"]].concat();
        let location = Location::prepare(config)?;
        let connection = Connection::open(&location.database).unwrap();
        bring_to(&steps, &connection, config, &location, "this boot")
    }

    fn lock(config: &SqliteConfig) -> Result<Lock> {
        let backend = SqliteBackend::open(config.clone())?;
        Ok(Lock::new(Arc::new(backend), LockKey::new("x")?))
    }

    fn take(lock: &Lock) -> FencingToken {
        let guard = lock.acquire().wait().unwrap();
        guard.fencing_token().unwrap()
    }

    #[test]
    fn a_newer_release_migrates_once_no_older_one_lives_and_then_keeps_it_out() {
        let private = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir();
        let config = SqliteConfig::at(directory.unwrap().keep().join("l.db"));

        let older = lock(&config).unwrap();
        let before = take(&older);
        let held = older.acquire().wait().unwrap();
        let refusal = open_by_a_newer_release(&config).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        assert!(held.is_held(), "a refused migration changed something");
        drop(held);
        // Also with nothing held: the older one may take a lock at any time.
        let refusal = open_by_a_newer_release(&config).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        assert!(take(&older) > before);

        drop(older);
        open_by_a_newer_release(&config).unwrap();
        open_by_a_newer_release(&config).unwrap();
        let path = config.path.clone().unwrap();
        let connection = Connection::open(&path).unwrap();
        let migrated = "SELECT version, token, note FROM lock_store, lock_key WHERE name = ':x'";
        let (version, token, note): (i64, i64, Option<String>) = connection
            .query_row(migrated, (), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!((version, note), (VERSION + 1, None));
        assert!(token as u64 > before.number().base(), "a number went back");
        let refusal = lock(&config).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::InvalidConfig, "{refusal}");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
