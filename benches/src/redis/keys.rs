//! Many tasks, each at a key of its own, over one connection.

use std::time::Instant;

use anyhow::Result;
use lock_benches::{Bar, Session};
use lock_testkit::services::redis::RedisServer;

use crate::contender::{Contender, FLOOR, OURS, RSLOCK};
use crate::{Path, failed, uncontended};

const TASKS: usize = 64;
const PAIRS_PER_TASK: usize = 100;

pub(crate) fn measure(session: &mut Session, path: &Path, server: &RedisServer) -> Result<()> {
    let section = format!("keys-{}", path.name);
    if !session.wants(&section) {
        return Ok(());
    }
    let runtime = uncontended::runtime()?;
    let names = [FLOOR, OURS, RSLOCK];
    let contenders = runtime.block_on(async {
        let open = |name| Contender::open(name, &path.url);
        names.map(open).into_iter().collect::<Result<Vec<_>>>()
    })?;
    let rounds = session.section(&section, |round| {
        for (name, contender) in names.iter().zip(&contenders) {
            let before = server.usage().map_err(failed)?;
            let start = Instant::now();
            runtime.block_on(all_at_once(contender))?;
            let elapsed = start.elapsed();
            let after = server.usage().map_err(failed)?;
            let pairs = (TASKS * PAIRS_PER_TASK) as f64;
            let cpu = after.cpu.saturating_sub(before.cpu);
            round.record(format!("{name} pairs per s"), pairs / elapsed.as_secs_f64());
            let per_pair = cpu.as_secs_f64() * 1e6 / pairs;
            round.record(format!("{name} server us per pair"), per_pair);
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else { return Ok(()) };
    let bar = Bar::at_least(format!("{section} throughput to floor"), 0.5);
    session.judge(&rounds, &bar, |round| {
        round.get("ours pairs per s") / round.get("floor pairs per s")
    });
    let bar = Bar::at_most(format!("{section} server CPU us per pair"), 11.0);
    session.judge(&rounds, &bar, |round| round.get("ours server us per pair"));
    Ok(())
}

async fn all_at_once(contender: &Contender) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..TASKS {
        let seat = contender.at(&format!("key-{number}"))?;
        tasks.spawn(async move {
            for _ in 0..PAIRS_PER_TASK {
                seat.acquire().await?.release().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
