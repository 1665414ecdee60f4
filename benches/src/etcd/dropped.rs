//! Acquires that are dropped at random, before, during and after their grant.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use lock_benches::{Bar, Round, Session};
use lock_core::Lock;

use super::{Bench, ours, started};

const DROPS: usize = 10_000;
const TASKS: usize = 32;
const KEYS: usize = 8;
/// Longer than an acquire that nobody delays.
const LONGEST: Duration = Duration::from_millis(4);
/// Within this time whatever was given up is gone.
const PATIENCE: Duration = Duration::from_secs(10);

impl Bench {
    pub(crate) fn dropped(&self, session: &mut Session) -> Result<()> {
        let cluster = &self.one;
        let measure = |round: &mut Round| {
            let clients = [
                ours::open(&cluster.endpoints())?,
                ours::open(&cluster.endpoints())?,
            ];
            let dropped = self.runtime.block_on(async {
                let tasks = (0..TASKS).map(|number| {
                    let client = &clients[number % clients.len()];
                    let locks = (0..KEYS).map(|key| ours::lock(client, &format!("dropped/{key}")));
                    Ok(tokio::spawn(drop_many(locks.collect::<Result<Vec<_>>>()?)))
                });
                let mut dropped = 0;
                for task in tasks.collect::<Result<Vec<_>>>()? {
                    dropped += task.await??;
                }
                anyhow::Ok(dropped)
            })?;
            let start = Instant::now();
            let left = loop {
                let left = started(cluster.keys("locks/locks/"))?;
                if left.is_empty() {
                    break left;
                }
                if start.elapsed() > PATIENCE {
                    println!("left behind: {left:#?}");
                    break left;
                }
                // sleep: the interval of a poll
                std::thread::sleep(Duration::from_millis(20));
            };
            round.record("dropped while pending", dropped as f64);
            round.record("keys left", left.len() as f64);
            round.record(
                "until all were gone, ms",
                start.elapsed().as_secs_f64() * 1e3,
            );
            // The sessions end after the count: their leases would hide what was left.
            for client in clients {
                self.runtime.block_on(client.close())?;
            }
            Ok(())
        };
        let Some(rounds) = session.section("dropped acquires", measure)? else {
            return Ok(());
        };
        let total: f64 = rounds
            .iter()
            .map(|round| round.get("dropped while pending"))
            .sum();
        let left: f64 = rounds.iter().map(|round| round.get("keys left")).sum();
        let bar = Bar::at_most(format!("keys left by {total} dropped acquires"), 0.0);
        session.judge(&rounds, &bar, |_| left);
        Ok(())
    }
}

/// Acquires keys at random and drops most acquires before they are done. Returns how many were
/// dropped while pending.
async fn drop_many(locks: Vec<Lock>) -> Result<usize> {
    let mut dropped = 0;
    // A ninth of all in each round, and more, so that all together are enough.
    while dropped < DROPS.div_ceil(9 * TASKS) {
        let random = RandomState::new().build_hasher().finish();
        let lock = &locks[random as usize % locks.len()];
        let limit = LONGEST.mul_f64((random >> 32) as f64 / f64::from(u32::MAX));
        match tokio::time::timeout(limit, lock.acquire()).await {
            Ok(guard) => drop(guard?),
            Err(_) => dropped += 1,
        }
    }
    Ok(dropped)
}
