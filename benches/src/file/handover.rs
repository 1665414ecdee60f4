//! From one process to the next: by a release, and by the death of the holder.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lock_benches::{Bar, Samples, Session};

use crate::party::{Kind, Party, monotonic_nanos, our_lock};

/// How many times the lock changes hands in a round.
const PASSES: u64 = 200;
const KILLS: usize = 120;
/// What takes longer than this was not woken: the backup timer looks every 20 ms.
const BACKUP: Duration = Duration::from_millis(10);

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let released = session.section("hand-over by release", |round| {
        for kind in [Kind::Flock, Kind::Ours] {
            let start = || Party::start(kind, directory.path());
            let samples = passes(start, PASSES, 2..5)?;
            round.record(format!("{} p50, us", kind.name()), samples.percentile(50.0));
            round.record(format!("{} p99, us", kind.name()), samples.percentile(99.0));
        }
        Ok(())
    })?;
    if let Some(rounds) = released {
        let bar = Bar::at_most("file-hand-over-p50-vs-blocking-flock", 2.5);
        session.judge(&rounds, &bar, |round| {
            round.get("ours p50, us") / round.get("flock p50, us")
        });
    }
    let (mut late, mut kills) = (0_u32, 0_u32);
    let killed = session.section("hand-over by SIGKILL", |round| {
        let waits = deaths(directory.path())?;
        late += waits.iter().filter(|wait| **wait > BACKUP).count() as u32;
        kills += waits.len() as u32;
        let samples: Samples = waits.into_iter().collect();
        round.record("p50, us", samples.percentile(50.0));
        round.record("p99, us", samples.percentile(99.0));
        Ok(())
    })?;
    if let Some(rounds) = killed {
        let bar = Bar::tail_at_most("file-take-over-after-sigkill-p99-us", 2_000.0);
        session.judge(&rounds, &bar, |round| round.get("p99, us"));
        println!("{late} of {kills} take-overs were left to the backup timer");
        let bar = Bar::at_most("file-take-over-left-to-backup-timer", 0.001);
        session.judge(&rounds, &bar, |_| f64::from(late) / f64::from(kills));
    }
    Ok(())
}

/// Two processes pass the lock to and fro. The time runs from before the release in the one to the
/// return of the acquire in the other, which has waited for some milliseconds by then.
pub(crate) fn passes(
    start: impl Fn() -> Result<Party>,
    count: u64,
    held_milliseconds: Range<u64>,
) -> Result<Samples> {
    let mut parties = [start()?, start()?];
    parties[0].tell("take")?;
    parties[0].hear()?;
    let mut samples = Samples::default();
    for pass in 0..count {
        let [holder, waiter] = &mut parties;
        waiter.tell("take")?;
        // Spread evenly, so that no rhythm of a waiter that polls is met again and again.
        let spread = held_milliseconds.end - held_milliseconds.start;
        let held = held_milliseconds.start * 1000 + pass * 7_919 % (spread * 1000);
        // sleep: the lock is held meanwhile, and the other party comes to rest
        std::thread::sleep(Duration::from_micros(held));
        holder.tell("give")?;
        let (given, taken) = (holder.hear_number()?, waiter.hear_number()?);
        samples.push(Duration::from_nanos((taken - given).max(0.0) as u64));
        parties.reverse();
    }
    Ok(samples)
}

/// A holder is killed while this process waits, again and again.
fn deaths(directory: &Path) -> Result<Vec<Duration>> {
    let lock = our_lock(directory, "contended")?;
    let mut waits = Vec::new();
    let mut next = Party::start(Kind::Ours, directory)?;
    for _ in 0..KILLS {
        let mut holder = next;
        holder.tell("take")?;
        holder.hear()?;
        let waiting = lock.acquire();
        let waiter = std::thread::spawn(move || {
            let guard = waiting.wait()?;
            let taken = monotonic_nanos();
            drop(guard);
            Ok::<_, lock_core::Error>(taken)
        });
        // Started here, so that its start disturbs nothing that is measured.
        next = Party::start(Kind::Ours, directory)?;
        // sleep: the waiter comes to rest
        std::thread::sleep(Duration::from_millis(3));
        let killed = monotonic_nanos();
        holder.kill()?;
        let taken = waiter
            .join()
            .map_err(|_| anyhow::anyhow!("a waiter panicked"))??;
        waits.push(Duration::from_nanos(taken.saturating_sub(killed)));
    }
    Ok(waits)
}
