//! One connection: how it is opened, and how it waits for others.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lock_core::clock::Instant;
use rusqlite::config::DbConfig::{SQLITE_DBCONFIG_ENABLE_QPSG, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE};
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, Params, Row};

/// Bytes of a page in a new database. A commit writes whole pages, and one row of a lock's size.
pub(crate) const PAGE: i32 = 1024;

/// The connection of one process. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    patience: Arc<AtomicU64>,
    /// No key is granted with a fencing base of this or less.
    floor: AtomicI64,
    /// What a statement noted last.
    noted: Arc<AtomicI64>,
}

impl Database {
    /// Opens an existing file. Changes nothing in it.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(48);
        // Or some statements would be planned anew for each key.
        connection.set_db_config(SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let patience = Arc::new(AtomicU64::new(0));
        let until = Arc::clone(&patience);
        connection.busy_handler(Some(move |_| wait_a_little(&until)))?;
        let noted = Arc::new(AtomicI64::new(0));
        let note = Arc::clone(&noted);
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function("lock_note", 1, flags, move |call| {
            let number: i64 = call.get(0)?;
            note.store(number, Ordering::Relaxed);
            Ok(number)
        })?;
        Ok(Self {
            connection,
            patience,
            floor: AtomicI64::new(0),
            noted,
        })
    }

    /// Makes commits durable with the next checkpoint, and tells the length of the log after each.
    pub(crate) fn set_up(&mut self, log_len: Arc<AtomicI64>) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.pragma_update(None, "synchronous", "normal")?;
        let page_size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // Takes the place of SQLite's own checkpoints, which would stall the caller's thread.
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            log_len.store(i64::from(pages) * page_size, Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Learns the floor, once for a session: it is raised after a boot, when no session lives, and
    /// for keys that are forgotten, which begin with the floor of that time.
    pub(crate) fn read_floor(&self) -> rusqlite::Result<()> {
        let floor = self.first("SELECT floor FROM lock_store", (), |row| row.get(0))?;
        self.floor
            .store(floor.unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn floor(&self) -> i64 {
        self.floor.load(Ordering::Relaxed)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// From now on waits at most this long for other programs that write.
    pub(crate) fn be_patient(&self, limit: Duration) {
        let until = (Instant::now() + limit).as_nanos();
        self.patience.store(until, Ordering::Relaxed);
    }

    /// Begins a transaction, as the only writer.
    pub(crate) fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        self.execute("BEGIN IMMEDIATE", ())?;
        Ok(Transaction(self))
    }

    /// Runs a statement, and says how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    /// Runs a statement that changes a row or none, and gives out what it passed to `lock_note`: a
    /// fraction of the price of `RETURNING`, which makes a table of what it returns.
    pub(crate) fn noted(&self, sql: &str, params: impl Params) -> rusqlite::Result<Option<i64>> {
        let changed = self.execute(sql, params)?;
        Ok((changed > 0).then(|| self.noted.load(Ordering::Relaxed)))
    }

    /// The first row, if there is one.
    ///
    /// Steps to the end: SQLite ends a statement, and tells the length of the log, only there.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let found = match rows.next()? {
            Some(row) => read(row)?,
            None => return Ok(None),
        };
        while rows.next()?.is_some() {}
        Ok(Some(found))
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        rows.collect()
    }

    /// Changes whenever another connection has committed something.
    pub(crate) fn data_version(&self) -> rusqlite::Result<i64> {
        let version = self.first("PRAGMA data_version", (), |row| row.get(0))?;
        Ok(version.unwrap_or_default())
    }

    /// Closes in a forked child what was opened in its parent, without touching the file.
    pub(crate) fn close_inherited(self) {
        if let Err(error) = self
            .connection
            .set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "an inherited connection stays open");
            std::mem::forget(self);
        }
    }
}

/// A transaction that is rolled back unless it is committed.
#[derive(Debug)]
pub(crate) struct Transaction<'d>(&'d Database);

impl Transaction<'_> {
    pub(crate) fn commit(self) -> rusqlite::Result<()> {
        self.0.execute("COMMIT", ()).map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // It is over after a commit, and after many failures.
        if !self.0.connection.is_autocommit()
            && let Err(error) = self.0.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a rollback failed");
        }
    }
}

/// Another process writes, for tens of microseconds. SQLite's own handler would back off further and
/// further, and starve behind whoever comes again at once.
fn wait_a_little(until: &AtomicU64) -> bool {
    static SPREAD: AtomicU64 = AtomicU64::new(0);
    if Instant::now().as_nanos() >= until.load(Ordering::Relaxed) {
        return false;
    }
    // Weyl's sequence: processes that collided once do not come back in step.
    let step = SPREAD.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    std::thread::sleep(Duration::from_micros(20 + (step >> 58)));
    true
}
