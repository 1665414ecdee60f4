//! The floor: a table of locks, one statement to take a row and one to give it back.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, TransactionBehavior};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS locks (
    name TEXT PRIMARY KEY, token INTEGER NOT NULL, owner INTEGER
) WITHOUT ROWID";
const TAKE: &str = "INSERT INTO locks (name, token, owner) VALUES (?1, 1, ?2)
    ON CONFLICT (name) DO UPDATE SET token = token + 1, owner = excluded.owner
    WHERE owner IS NULL RETURNING token";
const GIVE: &str = "UPDATE locks SET owner = NULL WHERE name = ?1 AND owner = ?2";

/// A connection with the same settings as ours, and SQLite's own checkpoints.
pub(crate) struct Bare(Connection);

impl Bare {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        // As ours waits: shortly. SQLite's own handler starves.
        connection.busy_handler(Some(|_| {
            std::thread::sleep(Duration::from_micros(50));
            true
        }))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute(TABLE, ())?;
        Ok(Self(connection))
    }

    /// Takes a free lock, and gives it back.
    pub(crate) fn cycle(&self, name: &str, owner: i64) -> Result<()> {
        anyhow::ensure!(self.try_take(name, owner)?, "a free bare lock is taken");
        self.give(name, owner)
    }

    /// Takes a lock, unless it is taken.
    pub(crate) fn try_take(&self, name: &str, owner: i64) -> Result<bool> {
        let mut take = self.0.prepare_cached(TAKE)?;
        let mut rows = take.query((name, owner))?;
        let taken = rows.next()?.is_some();
        // Stepped to its end, or SQLite never copies its log back.
        anyhow::ensure!(!taken || rows.next()?.is_none(), "two rows");
        Ok(taken)
    }

    pub(crate) fn give(&self, name: &str, owner: i64) -> Result<()> {
        let given = self.0.prepare_cached(GIVE)?.execute((name, owner))?;
        anyhow::ensure!(given == 1, "a bare lock was not ours");
        Ok(())
    }

    /// A transaction that changes a row by both statements.
    pub(crate) fn transaction(&mut self, name: &str, owner: i64) -> Result<()> {
        let behaviour = TransactionBehavior::Immediate;
        let transaction = self.0.transaction_with_behavior(behaviour)?;
        let mut take = transaction.prepare_cached(TAKE)?;
        let taken: i64 = take.query_row((name, owner), |row| row.get(0))?;
        anyhow::ensure!(taken > 0, "no token");
        drop(take);
        transaction.prepare_cached(GIVE)?.execute((name, owner))?;
        Ok(transaction.commit()?)
    }
}
