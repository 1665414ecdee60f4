//! One thread, one name, nobody else.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use lock_benches::{Bar, Session, nanoseconds_per_call};
use lock_core::{Lock, LockBackend, LockKey};
use lock_sqlite::{SqliteBackend, SqliteConfig};

use crate::bare::Bare;

const PAIRS: u32 = 5_000;

pub(crate) fn backend(config: SqliteConfig) -> Result<Arc<dyn LockBackend>> {
    Ok(Arc::new(SqliteBackend::open(config)?))
}

pub(crate) fn lock(path: &Path, name: &str) -> Result<Lock> {
    let backend = backend(SqliteConfig::at(path))?;
    Ok(Lock::new(backend, LockKey::new(name)?))
}

/// Takes a lock and gives it back; what the contract demands is there.
pub(crate) fn cycle(lock: &Lock) -> Result<()> {
    let guard = lock.acquire().wait()?;
    anyhow::ensure!(guard.fencing_token().is_some() && guard.is_held());
    guard.release_blocking()?;
    Ok(())
}

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bare = Bare::open(&directory.path().join("bare.db"))?;
    let ours = lock(&directory.path().join("ours/locks.db"), "orders/42")?;
    let rounds = session.section("uncontended", |round| {
        let mut outcome = Ok(());
        let mut keep = |next: Result<()>| {
            if outcome.is_ok() {
                outcome = next;
            }
        };
        let floor = nanoseconds_per_call(PAIRS, || keep(bare.cycle("orders/42", 1)));
        round.record("bare statements, us", floor / 1e3);
        let pair = nanoseconds_per_call(PAIRS, || keep(cycle(&ours)));
        round.record("ours, us", pair / 1e3);
        outcome
    })?;
    if let Some(rounds) = rounds {
        let bar = Bar::at_most("sqlite-uncontended-vs-bare-statements", 1.6);
        session.judge(&rounds, &bar, |round| {
            round.get("ours, us") / round.get("bare statements, us")
        });
    }
    Ok(())
}
