//! Ten thousand waiters of one process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lock_benches::{Bar, Session};
use lock_testkit::services::redis::{RedisServer, Usage};

use crate::ours::Client;
use crate::{Path, failed, uncontended};

const WAITERS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(session: &mut Session, path: &Path, server: &RedisServer) -> Result<()> {
    let section = format!("waiters-{}", path.name);
    let runtime = uncontended::runtime()?;
    let rounds = session.section(&section, |round| {
        let usage = || server.usage().map_err(failed);
        let alone = usage()?;
        let client = Client::open(&path.url)?;
        let lock = client.lock("crowded")?;
        let held = lock.acquire().wait()?;
        let before = usage()?;
        let (all_granted, waiting) = std::sync::mpsc::channel();
        for _ in 0..WAITERS {
            let (acquire, all_granted) = (lock.acquire(), all_granted.clone());
            runtime.spawn(async move {
                let guard = acquire.await;
                // Nobody to tell means that the round has failed already.
                let _ = all_granted.send(guard.map(drop));
            });
        }
        drop(all_granted);
        let crowded = until_all_wait(&client, &usage)?;
        let connections = crowded.clients - alone.clients;
        round.record("connections", connections as f64);
        let bytes = crowded.memory.saturating_sub(before.memory) as f64 / WAITERS as f64;
        round.record("server bytes per waiter", bytes);
        let start = Instant::now();
        drop(held);
        for granted in waiting {
            granted?;
        }
        let drained = start.elapsed().as_secs_f64() * 1e6 / WAITERS as f64;
        round.record("us per waiter until all had it", drained);
        client.close()
    })?;
    let Some(rounds) = rounds else { return Ok(()) };
    let bar = Bar::at_most(format!("{section} connections of 10,000"), 2.0);
    session.judge(&rounds, &bar, |round| round.get("connections"));
    let bar = Bar::at_most(format!("{section} server bytes per waiter"), 1_024.0);
    session.judge(&rounds, &bar, |round| round.get("server bytes per waiter"));
    Ok(())
}

fn until_all_wait(client: &Client, usage: &impl Fn() -> Result<Usage>) -> Result<Usage> {
    let start = Instant::now();
    loop {
        let waiting = client.waiters("crowded")?;
        if waiting == WAITERS {
            return usage().context("looking at the crowd");
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "only {waiting} of {WAITERS} wait"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
