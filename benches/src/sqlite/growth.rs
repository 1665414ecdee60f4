//! What grows over a million operations: the log, and memory.

use std::path::Path;

use anyhow::{Context, Result};
use lock_benches::{Bar, Session};

use crate::uncontended::{cycle, lock};

/// Operations of a round; two make a pair.
const OPERATIONS: u32 = 112_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ours/locks.db");
    let (mut operations, mut before) = (0, None);
    let rounds = session.section("growth", |round| {
        let ours = lock(&path, "busy")?;
        let mut longest = 0;
        for pair in 0..OPERATIONS / 2 {
            cycle(&ours)?;
            if pair.is_multiple_of(64) {
                longest = longest.max(size(&path)?);
            }
        }
        operations += OPERATIONS;
        let memory = resident_kibibytes()?;
        // The first round fills the caches.
        let first = *before.get_or_insert(memory);
        round.record("longest log, MiB", longest as f64 / f64::from(1 << 20));
        round.record("resident, MiB", memory / 1024.0);
        round.record("resident against the first round", memory / first);
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        println!("{operations} operations");
        let longest = rounds
            .iter()
            .map(|round| round.get("longest log, MiB"))
            .fold(0.0, f64::max);
        session.judge(&rounds, &Bar::at_most("sqlite-log-MiB", 8.0), |_| longest);
        let most = rounds
            .iter()
            .map(|round| round.get("resident against the first round"))
            .fold(0.0, f64::max);
        session.judge(&rounds, &Bar::at_most("sqlite-memory-growth", 1.05), |_| {
            most
        });
    }
    Ok(())
}

fn size(database: &Path) -> Result<u64> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    Ok(std::fs::metadata(log)?.len())
}

fn resident_kibibytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("no resident size")?.trim();
    let number = text.strip_suffix(" kB").context("another unit")?;
    Ok(number.trim().parse()?)
}
