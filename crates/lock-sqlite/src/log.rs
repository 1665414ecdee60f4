//! The write-ahead log: kept short by a connection of its own, while commands go on.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use lock_core::fork::undisturbed;
use lock_core::runtime;

use crate::database::Database;
use crate::inherited::{self, Engine};
use crate::office::Office;

/// The log is copied back from this many bytes on …
const DUE_AT: i64 = 3 << 20;
/// … and again when it has grown by this much, for a reader can keep a checkpoint from its end.
const STEP: i64 = 400 << 10;
/// From this many bytes on, commands wait for a checkpoint that is at work.
const FULL: i64 = 6 << 20;
/// How long a checkpoint may wait for readers and for a gap between two writers.
const PATIENCE: Duration = Duration::from_millis(100);

/// The log of the database, as one process sees it.
#[derive(Debug)]
pub(crate) struct Log {
    /// Bytes, after the last commit of this process.
    len: Arc<AtomicI64>,
    due_at: AtomicI64,
    /// Opened when it is needed first. A checkpoint writes to the disk for milliseconds: on the
    /// connection of the commands it would keep a process out of every queue meanwhile.
    engine: Arc<Engine>,
}

impl Log {
    /// Follows the log from the commits of a connection.
    pub(crate) fn follow(database: &mut Database) -> rusqlite::Result<Self> {
        let len = Arc::new(AtomicI64::new(0));
        database.set_up(Arc::clone(&len))?;
        let engine = Arc::new(Mutex::new(None));
        inherited::register(&engine);
        Ok(Self {
            len,
            due_at: AtomicI64::new(DUE_AT),
            engine,
        })
    }

    /// Closes its connection. Keep forks out before.
    pub(crate) fn close(&self) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
    }

    /// Whether the caller has to copy it back. Nobody else is told so for the next [`STEP`].
    fn is_due(&self) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        let due_at = self.due_at.load(Ordering::Relaxed);
        len >= due_at && {
            let order = Ordering::Relaxed;
            let swap = self
                .due_at
                .compare_exchange(due_at, len + STEP, order, order);
            swap.is_ok()
        }
    }

    /// Whether commands have to wait, which no caller of a task should do.
    pub(crate) fn is_full(&self) -> bool {
        let is_at_work = || matches!(self.engine.try_lock(), Err(TryLockError::WouldBlock));
        self.len.load(Ordering::Relaxed) >= FULL && is_at_work()
    }

    /// Waits while the log is full.
    pub(crate) fn make_room(&self) {
        if self.is_full() {
            drop(self.engine.lock());
        }
    }

    fn copy_back(&self, path: &Path) -> rusqlite::Result<()> {
        let _calm = undisturbed();
        let Ok(mut engine) = self.engine.try_lock() else {
            // Somebody is at it.
            return Ok(());
        };
        let database = match &mut *engine {
            Some(database) => database,
            none => none.insert(Database::open(path)?),
        };
        let mut state = checkpoint(database, "PASSIVE")?;
        if state == Copied::Partly {
            // The rest, which was written meanwhile, while nobody can write more.
            state = checkpoint(database, "RESTART")?;
        }
        if state == Copied::All {
            self.len.store(0, Ordering::Relaxed);
            self.due_at.store(DUE_AT, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Copies the log back if it has grown long, on another thread.
pub(crate) fn keep_short(office: &Arc<Office>) {
    if !office.log().is_due() {
        return;
    }
    let office = Arc::clone(office);
    runtime::handle().spawn_blocking(move || {
        if let Err(error) = office.log().copy_back(office.path()) {
            tracing::debug!(%error, "the log grows on");
        }
    });
}

/// How much of the log a checkpoint copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    /// All: it starts anew.
    All,
    Partly,
    /// Another process is at it.
    Nothing,
}

fn checkpoint(database: &Database, mode: &str) -> rusqlite::Result<Copied> {
    database.be_patient(PATIENCE);
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    let connection = database.connection();
    let (refused, log, copied): (bool, i32, i32) = connection.query_row(&pragma, [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(match refused {
        true => Copied::Nothing,
        false if log == copied => Copied::All,
        false => Copied::Partly,
    })
}
