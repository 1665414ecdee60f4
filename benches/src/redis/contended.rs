//! Sixteen processes at one key.

use std::time::Duration;

use anyhow::{Result, ensure};
use lock_benches::{Bar, Round, Samples, Session};
use lock_core::clock::Instant;
use lock_testkit::services::redis::RedisServer;

use crate::contender::{OURS, RSLOCK};
use crate::ping_pong::PingPong;
use crate::worker::{Turn, Worker};
use crate::{Path, failed};

const PROCESSES: usize = 16;
/// Fairness over fewer grants says little.
const GRANTS: u64 = 10_000;
const PING_PONGS: usize = 500;

pub(crate) fn measure(session: &mut Session, path: &Path, server: &RedisServer) -> Result<()> {
    for (hold, duration) in [(0, 1_500), (2, 4_500)].map(milliseconds) {
        let section = format!("contended-{}-{}ms", path.name, hold.as_millis());
        let mut ping_pong = PingPong::start(&path.url)?;
        let mut grants = [0; PROCESSES];
        let rounds = session.section(&section, |round| {
            let legs = ping_pong.round_trips(PING_PONGS, hold)?;
            round.record("push ping-pong p50 us", legs.percentile(50.0));
            let contest = Contest::hold(OURS, path, hold, duration, server)?;
            for (sum, turns) in grants.iter_mut().zip(&contest.turns) {
                *sum += turns.len() as u64;
            }
            contest.record(OURS, round);
            ensure!(!contest.hand_overs().is_empty(), "nothing was handed over");
            Contest::hold(RSLOCK, path, hold, duration, server)?.record(RSLOCK, round);
            Ok(())
        })?;
        let Some(rounds) = rounds else { continue };
        let bar = Bar::at_most(format!("{section} hand-over p50 to ping-pong"), 1.5);
        session.judge(&rounds, &bar, |round| {
            round.get("ours hand-over p50 us") / round.get("push ping-pong p50 us")
        });
        let bar = Bar::at_most(format!("{section} hand-over p99 to rslock"), 0.2);
        session.judge(&rounds, &bar, |round| {
            round.get("ours hand-over p99 us") / round.get("rslock hand-over p99 us")
        });
        let bar = Bar::at_most(format!("{section} commands per acquisition"), 12.0);
        session.judge(&rounds, &bar, |round| round.get("ours commands"));
        let fairness = ratio_of_extremes(&grants);
        let enough = grants.iter().sum::<u64>() >= GRANTS;
        let bar = Bar::at_most(
            format!("{section} max/min of {} grants", grants.iter().sum::<u64>()),
            1.05,
        );
        // Too few say nothing, so the bar must not hold by them.
        session.judge(&rounds, &bar, |_| if enough { fairness } else { f64::NAN });
    }
    Ok(())
}

fn milliseconds((hold, duration): (u64, u64)) -> (Duration, Duration) {
    (Duration::from_millis(hold), Duration::from_millis(duration))
}

fn ratio_of_extremes(grants: &[u64]) -> f64 {
    let most = grants.iter().max().copied().unwrap_or(0);
    let least = grants.iter().min().copied().unwrap_or(0);
    most as f64 / least as f64
}

/// What happened while all processes competed.
struct Contest {
    turns: Vec<Vec<Turn>>,
    commands: u64,
}

impl Contest {
    fn hold(
        contender: &str,
        path: &Path,
        hold: Duration,
        duration: Duration,
        server: &RedisServer,
    ) -> Result<Self> {
        let mut workers = (0..PROCESSES)
            .map(|_| Worker::start(contender, &path.url, hold))
            .collect::<Result<Vec<_>>>()?;
        workers.iter_mut().try_for_each(Worker::wait_until_ready)?;
        let before = server.usage().map_err(failed)?;
        let start = Instant::now() + Duration::from_millis(50);
        for worker in &mut workers {
            worker.begin(start, start + duration)?;
        }
        let turns = workers.into_iter().map(Worker::turns);
        let turns = turns.collect::<Result<Vec<_>>>()?;
        let after = server.usage().map_err(failed)?;
        let commands = after.commands - before.commands;
        Ok(Self { turns, commands })
    }

    fn record(&self, name: &str, round: &mut Round) {
        let grants: u64 = self.turns.iter().map(|turns| turns.len() as u64).sum();
        let hand_overs = self.hand_overs();
        for percent in [50.0, 99.0] {
            let what = format!("{name} hand-over p{percent} us");
            round.record(what, hand_overs.percentile(percent));
        }
        let all = self.turns.iter().flatten();
        let waits: Samples = all
            .map(|turn| turn.acquired.saturating_duration_since(turn.asked))
            .collect();
        round.record(format!("{name} wait p99 us"), waits.percentile(99.0));
        round.record(format!("{name} hand-overs"), hand_overs.len() as f64);
        round.record(format!("{name} grants"), grants as f64);
        // A peer that sleeps between its polls may get none.
        if grants > 0 {
            let commands = self.commands as f64 / grants as f64;
            round.record(format!("{name} commands"), commands);
        }
    }

    /// From just before a release until another process holds.
    fn hand_overs(&self) -> Samples {
        let mut turns: Vec<(usize, Turn)> = Vec::new();
        for (process, own) in self.turns.iter().enumerate() {
            turns.extend(own.iter().map(|turn| (process, *turn)));
        }
        turns.sort_by_key(|(_, turn)| turn.acquired);
        let pairs = turns.windows(2).filter(|pair| pair[0].0 != pair[1].0);
        pairs
            .map(|pair| {
                let (before, after) = (pair[0].1, pair[1].1);
                after.acquired.saturating_duration_since(before.released)
            })
            .collect()
    }
}
