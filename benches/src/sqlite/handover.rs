//! From one process to the next: by a release, and by the death of the holder.

use std::ops::Range;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use lock_benches::{Bar, Samples, Session};

use crate::bare::Bare;
use crate::party::{Party, monotonic_nanos, wait_apart};
use crate::uncontended::lock;

const PASSES: u64 = 200;
const KILLS: usize = 100;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut bare = Bare::open(&directory.path().join("bare.db"))?;
    let released = session.section("hand-over by release", |round| {
        let ping = pings(directory.path())?;
        round.record("datagram to and fro p50, us", ping.percentile(50.0));
        let mut transactions = Samples::default();
        for pass in 0..PASSES {
            rest(pass);
            transactions.measure(|| bare.transaction("x", 1))?;
        }
        round.record("transaction p50, us", transactions.percentile(50.0));
        let samples = passes(|| Party::start(directory.path(), "passed"), PASSES, 2..5)?;
        round.record("ours p50, us", samples.percentile(50.0));
        round.record("ours p99, us", samples.percentile(99.0));
        Ok(())
    })?;
    if let Some(rounds) = released {
        let bar = Bar::at_most("sqlite-hand-over-p50-vs-ping-pong-and-transaction", 3.0);
        session.judge(&rounds, &bar, |round| {
            let floor = round.get("datagram to and fro p50, us") + round.get("transaction p50, us");
            round.get("ours p50, us") / floor
        });
    }
    let killed = session.section("hand-over by SIGKILL", |round| {
        let samples = deaths(directory.path())?;
        round.record("p50, us", samples.percentile(50.0));
        round.record("p99, us", samples.percentile(99.0));
        Ok(())
    })?;
    if let Some(rounds) = killed {
        let bar = Bar::tail_at_most("sqlite-take-over-after-sigkill-p99-us", 5_000.0);
        session.judge(&rounds, &bar, |round| round.get("p99, us"));
    }
    Ok(())
}

/// A datagram to another process and back, each time after a [`rest`].
fn pings(directory: &Path) -> Result<Samples> {
    let (here, there) = (directory.join("here"), directory.join("there"));
    for path in [&here, &there] {
        // Of the round before.
        let _ = std::fs::remove_file(path);
    }
    let socket = UnixDatagram::bind(&here)?;
    let mut command = lock_benches::Role::new(crate::party::ECHO).command(&[])?;
    let mut echo = command.arg(&here).arg(&there).spawn()?;
    let mut buffer = [0; 64];
    // Its first word: it listens.
    socket.recv(&mut buffer)?;
    let mut samples = Samples::default();
    for pass in 0..PASSES {
        rest(pass);
        let start = Instant::now();
        socket.send_to(&[1; 25], &there)?;
        socket.recv(&mut buffer)?;
        samples.push(start.elapsed());
    }
    echo.kill()?;
    echo.wait()?;
    Ok(samples)
}

/// Some milliseconds at rest, as a waiter and what it needs are before a hand-over.
fn rest(pass: u64) {
    // sleep: caches and cores cool down
    std::thread::sleep(Duration::from_micros(2_000 + pass * 7_919 % 3_000));
}

/// Two processes pass the lock to and fro. The time runs from before the release in the one to the
/// return of the acquire in the other, which has waited for some milliseconds by then.
/// Every hold lasts some milliseconds of `rest`.
pub(crate) fn passes(
    start: impl Fn() -> Result<Party>,
    count: u64,
    rest: Range<u64>,
) -> Result<Samples> {
    let mut parties = [start()?, start()?];
    parties[0].tell("take")?;
    parties[0].hear()?;
    let mut samples = Samples::default();
    for pass in 0..count {
        let [holder, waiter] = &mut parties;
        waiter.tell("take")?;
        // sleep: the lock is held meanwhile, and the other party comes to rest
        let spread = pass * 7_919 % ((rest.end - rest.start) * 1_000);
        std::thread::sleep(Duration::from_micros(rest.start * 1_000 + spread));
        holder.tell("give")?;
        let (given, taken) = (holder.hear_number()?, waiter.hear_number()?);
        samples.push(Duration::from_nanos(taken.saturating_sub(given)));
        parties.reverse();
    }
    Ok(samples)
}

/// A holder is killed while this process waits, again and again.
fn deaths(directory: &Path) -> Result<Samples> {
    let ours = lock(&directory.join("ours/locks.db"), "mortal")?;
    let mut samples = Samples::default();
    let mut next = Party::start(directory, "mortal")?;
    for _ in 0..KILLS {
        let mut holder = next;
        holder.tell("take")?;
        holder.hear()?;
        let waiter = wait_apart(&ours);
        // sleep: the waiter is in the queue
        std::thread::sleep(Duration::from_millis(5));
        let killed = monotonic_nanos();
        holder.kill()?;
        let taken = waiter
            .join()
            .map_err(|_| anyhow::anyhow!("a waiter panicked"))??;
        samples.push(Duration::from_nanos(taken.saturating_sub(killed)));
        next = Party::start(directory, "mortal")?;
    }
    Ok(samples)
}
