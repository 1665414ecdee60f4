//! One process, nobody in the way.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lock_benches::{Bar, Session, nanoseconds_per_call};
use lock_core::{InspectQuery, Lock, LockKey, block_on};

use crate::party::{open_file, our_lock};

const WARM: u32 = 50_000;
const COLD: &str = "uncontended: cold";
const COLD_NAMES: usize = 2_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let floor = open_file(&directory.path().join("floor"))?;
    let lock = our_lock(directory.path(), "uncontended")?;
    let warm = session.section("uncontended: warm", |round| {
        round.record("flock + unlock, ns", cycles(|| raw(&floor))?);
        round.record("ours, ns", cycles(|| ours(&lock))?);
        Ok(())
    })?;
    if let Some(rounds) = warm {
        let bar = Bar::at_most("file-uncontended-warm-vs-flock", 6.0);
        session.judge(&rounds, &bar, |round| {
            round.get("ours, ns") / round.get("flock + unlock, ns")
        });
        let bar = Bar::at_most("file-uncontended-warm-vs-flock-stretch", 3.0);
        session.judge(&rounds, &bar, |round| {
            round.get("ours, ns") / round.get("flock + unlock, ns")
        });
    }
    assert_that_nothing_is_left_out(directory.path(), &lock)?;
    match session.wants(COLD) {
        true => measure_cold(session, directory.path()),
        false => Ok(()),
    }
}

/// More names than the backend keeps open, so that each one is opened anew and another one closed.
fn measure_cold(session: &mut Session, directory: &Path) -> Result<()> {
    let backend = our_lock(directory, "any")?.backend().clone();
    let names: Vec<String> = (0..COLD_NAMES).map(|n| format!("cold-{n}")).collect();
    let paths: Vec<_> = names.iter().map(|name| directory.join(name)).collect();
    let locks = names
        .iter()
        .map(|name| Ok(Lock::new(backend.clone(), LockKey::new(name)?)))
        .collect::<Result<Vec<Lock>>>()?;
    for (path, lock) in paths.iter().zip(&locks) {
        open_file(path)?;
        ours(lock)?;
    }
    let cold = session.section(COLD, |round| {
        let mut next = (0..COLD_NAMES).cycle();
        let mut path = || &paths[next.next().unwrap_or(0)];
        let floor = nanoseconds_per_call(COLD_NAMES as u32, || {
            let file = open_file(path()).and_then(|file| raw(&file).map(|()| file));
            drop(file);
        });
        round.record("open + flock + unlock + close, ns", floor);
        let mut failed = Ok(());
        let mut each = locks.iter();
        let cost = nanoseconds_per_call(COLD_NAMES as u32, || {
            failed = each.next().map_or(Ok(()), ours);
        });
        failed?;
        round.record("ours, ns", cost);
        Ok(())
    })?;
    if let Some(rounds) = cold {
        let bar = Bar::at_most("file-uncontended-cold-vs-open-flock-close", 3.0);
        session.judge(&rounds, &bar, |round| {
            round.get("ours, ns") / round.get("open + flock + unlock + close, ns")
        });
    }
    Ok(())
}

fn raw(file: &File) -> Result<()> {
    file.try_lock()?;
    Ok(file.unlock()?)
}

pub(crate) fn ours(lock: &Lock) -> Result<()> {
    let guard = lock.try_acquire().wait()?.context("contended")?;
    drop(guard);
    Ok(())
}

fn cycles(mut cycle: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut failed = Ok(());
    let nanos = nanoseconds_per_call(WARM, || {
        if failed.is_ok() {
            failed = cycle();
        }
    });
    failed.map(|()| nanos)
}

/// What the contract demands of an exclusive grant is there while it is measured.
fn assert_that_nothing_is_left_out(directory: &Path, lock: &Lock) -> Result<()> {
    let other = our_lock(directory, "uncontended")?;
    let mut last = None;
    for _ in 0..2 {
        let guard = lock.try_acquire().wait()?.context("contended")?;
        let token = guard.fencing_token().context("a fencing token")?;
        ensure!(last < Some(token), "fencing tokens must rise");
        last = Some(token);
        let query = InspectQuery::key(lock.key().clone());
        let page = block_on(other.backend().inspect(query))?;
        let holders = page.keys.first().map(|report| &report.holders);
        let seen = holders.and_then(|holders| holders.first());
        let seen = seen.context("another backend must see the holder's record")?;
        ensure!(seen.attempt == guard.attempt(), "another holder's record");
    }
    let guard = lock.try_acquire().wait()?.context("contended")?;
    std::fs::remove_file(directory.join("ours/uncontended.lock"))?;
    let released = guard.release_blocking()?;
    ensure!(
        released == lock_core::Released::AlreadyLost,
        "a deleted file must be noticed"
    );
    Ok(())
}
