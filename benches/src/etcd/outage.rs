//! Three nodes, one of which is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lock_benches::{Bar, Round, Session};
use lock_core::{FencingToken, LockBackend, LockGuard};

use super::{Bench, ours, started};

const HELD: usize = 100;
const TASKS: usize = 16;
const WINDOW: Duration = Duration::from_secs(2);
/// After a fault a lost lock would be noticed within this time: a third of the lease.
const WATCH: Duration = Duration::from_secs(3);

impl Bench {
    /// The leader is killed while locks are held.
    pub(crate) fn leader_killed(&self, session: &mut Session) -> Result<()> {
        let cluster = &self.three;
        let measure = |round: &mut Round| {
            let backend = ours::open(&cluster.endpoints())?;
            let guards = (0..HELD)
                .map(|number| {
                    Ok(ours::lock(&backend, &format!("held/{number}"))?
                        .acquire()
                        .wait()?)
                })
                .collect::<Result<Vec<LockGuard>>>()?;
            let last_token = guards.iter().filter_map(LockGuard::fencing_token).max();
            let last_token = last_token.context("exclusive guards carry a token")?;

            let leader = started(cluster.leader())?;
            let start = Instant::now();
            started(cluster.nodes()[leader].kill())?;
            let first = ours::lock(&backend, "after/0")?.acquire().wait()?;
            round.record("until a new acquisition, s", start.elapsed().as_secs_f64());
            let stranger = ours::open(&cluster.endpoints())?;
            let second = ours::lock(&stranger, "after/1")?.acquire().wait()?;
            round.record(
                "until one by a new client, s",
                start.elapsed().as_secs_f64(),
            );

            // sleep: for a loss that comes late
            std::thread::sleep(WATCH.saturating_sub(start.elapsed()));
            let lost = guards.iter().filter(|guard| !guard.is_held()).count();
            let mut back = 0;
            let is_back = |guard: &LockGuard| guard.fencing_token() <= Some(last_token);
            back += [&first, &second]
                .into_iter()
                .filter(|guard| is_back(guard))
                .count();
            back += release_and_take(&backend, guards)?;
            round.record("lost", lost as f64);
            round.record("tokens that went back", back as f64);
            started(cluster.start_node(leader))?;
            Ok(())
        };
        let Some(rounds) = session.section("leader killed", measure)? else {
            return Ok(());
        };
        let worst = |name| {
            rounds
                .iter()
                .map(|round| round.get(name))
                .fold(0.0, f64::max)
        };
        let lost = worst("lost");
        session.judge(
            &rounds,
            &Bar::at_most(format!("locks lost of {HELD}, worst round"), 0.0),
            |_| lost,
        );
        let back = worst("tokens that went back");
        session.judge(
            &rounds,
            &Bar::at_most("tokens that went back, worst round", 0.0),
            |_| back,
        );
        for name in ["until a new acquisition, s", "until one by a new client, s"] {
            session.judge(&rounds, &Bar::at_most(name, 3.0), |round| round.get(name));
        }
        Ok(())
    }

    /// One endpoint of three is dead.
    pub(crate) fn one_endpoint_dead(&self, session: &mut Session) -> Result<()> {
        let cluster = &self.three;
        let measure = |round: &mut Round| {
            let old = ours::open(&cluster.endpoints())?;
            let (healthy, _) = self.throughput(&old)?;
            let leader = started(cluster.leader())?;
            let dead = (leader + 1) % cluster.nodes().len();
            started(cluster.nodes()[dead].kill())?;
            // Its endpoint is the first that a new client tries.
            let mut endpoints = cluster.endpoints();
            endpoints.rotate_left(dead);
            let new = ours::open(&endpoints)?;
            let (of_old, errors_of_old) = self.throughput(&old)?;
            let (of_new, errors_of_new) = self.throughput(&new)?;
            started(cluster.start_node(dead))?;
            round.record("healthy, 1/s", healthy);
            round.record("one dead, 1/s", of_old);
            round.record("one dead, new client, 1/s", of_new);
            round.record("errors", (errors_of_old + errors_of_new) as f64);
            Ok(())
        };
        let Some(rounds) = session.section("one endpoint dead", measure)? else {
            return Ok(());
        };
        let errors = rounds.iter().map(|round| round.get("errors")).sum();
        session.judge(
            &rounds,
            &Bar::at_most("errors that callers saw, all rounds", 0.0),
            |_| errors,
        );
        for name in ["one dead, 1/s", "one dead, new client, 1/s"] {
            let bar = Bar::at_least(format!("{name} / healthy"), 0.8);
            session.judge(&rounds, &bar, |round| {
                round.get(name) / round.get("healthy, 1/s")
            });
        }
        Ok(())
    }

    /// Pairs a second of tasks with a key each, and how many failed.
    fn throughput(&self, backend: &Arc<dyn LockBackend>) -> Result<(f64, u64)> {
        let (pairs, errors) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        self.runtime.block_on(async {
            let tasks = (0..TASKS).map(|number| {
                let lock = ours::lock(backend, &format!("throughput/{number}"))?;
                let (pairs, errors) = (Arc::clone(&pairs), Arc::clone(&errors));
                Ok(tokio::spawn(async move {
                    while start.elapsed() < WINDOW {
                        let pair = async { lock.acquire().await?.release().await };
                        let counter = if pair.await.is_ok() { &pairs } else { &errors };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }))
            });
            for task in tasks.collect::<Result<Vec<_>>>()? {
                task.await?;
            }
            anyhow::Ok(())
        })?;
        let per_second = pairs.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        Ok((per_second, errors.load(Ordering::Relaxed)))
    }
}

/// Gives every lock back, takes it again, and returns how many tokens did not rise.
fn release_and_take(backend: &Arc<dyn LockBackend>, guards: Vec<LockGuard>) -> Result<usize> {
    let mut back = 0;
    for guard in guards {
        let (key, before): (_, Option<FencingToken>) = (guard.key().clone(), guard.fencing_token());
        guard.release_blocking()?;
        let again = lock_core::Lock::new(Arc::clone(backend), key)
            .acquire()
            .wait()?;
        back += usize::from(again.fencing_token() <= before);
    }
    Ok(back)
}
