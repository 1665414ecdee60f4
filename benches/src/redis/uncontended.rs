//! One caller, nobody in its way.

use std::time::Duration;

use anyhow::Result;
use lock_benches::{Bar, Round, Samples, Session};
use tokio::runtime::Runtime;

use crate::contender::{Contender, FLOOR, OURS, RSLOCK, Seat};
use crate::{Path, python};

const WARM_UP: usize = 200;
/// Contenders take turns within a round, so that all see the same machine.
const TURNS: usize = 5;
const PAIRS_PER_TURN: usize = 400;

pub(crate) fn measure(session: &mut Session, path: &Path) -> Result<()> {
    let section = format!("uncontended-{}", path.name);
    if !session.wants(&section) {
        return Ok(());
    }
    let runtime = runtime()?;
    let names = [FLOOR, RSLOCK, OURS];
    let seats = runtime.block_on(async {
        let open = |name| Contender::open(name, &path.url)?.at("uncontended");
        names.map(open).into_iter().collect::<Result<Vec<Seat>>>()
    })?;
    let python = python::Client::prepare()?;
    let rounds = session.section(&section, |round| {
        let mut samples = [const { Vec::new() }; 3];
        for seat in &seats {
            runtime.block_on(pairs(seat, WARM_UP))?;
        }
        for turn in 0..TURNS {
            for place in 0..seats.len() {
                let place = (place + turn) % seats.len();
                let taken = runtime.block_on(pairs(&seats[place], PAIRS_PER_TURN))?;
                samples[place].extend(taken);
            }
        }
        for (name, taken) in names.iter().zip(samples) {
            let taken: Samples = taken.into_iter().collect();
            round.record(format!("{name} p50 us"), taken.percentile(50.0));
            round.record(format!("{name} p99 us"), taken.percentile(99.0));
        }
        let python = python.uncontended(&path.url, TURNS * PAIRS_PER_TURN)?;
        round.record("redis-py p50 us", python);
        Ok(())
    })?;
    let Some(rounds) = rounds else { return Ok(()) };
    for (peer, limit) in [(FLOOR, 1.6), ("redis-py", 0.8), (RSLOCK, 1.6)] {
        let bar = Bar::at_most(format!("{section} to {peer}"), limit);
        let p50 = |round: &Round, who: &str| round.get(&format!("{who} p50 us"));
        session.judge(&rounds, &bar, |round| p50(round, OURS) / p50(round, peer));
    }
    Ok(())
}

async fn pairs(seat: &Seat, count: usize) -> Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let start = std::time::Instant::now();
        seat.acquire().await?.release().await?;
        samples.push(start.elapsed());
    }
    Ok(samples)
}

/// As an application has it: two workers. The connections of the floor and of ours live on the I/O
/// thread all the same.
pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}
