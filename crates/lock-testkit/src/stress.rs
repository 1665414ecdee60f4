//! Many processes and threads on few keys in all modes, and a verdict on what they did.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{AcquireOptions, Capabilities, Lock, LockBackend, LockKey, Mode};
use serde::{Deserialize, Serialize};

use crate::history::{self, Recorder, Summary};
use crate::process::{Act, Agent, Answer, Ask};
use crate::random::Random;
use crate::{Failure, Kit, Outcome};

/// What a stress run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the keys live.
    pub namespace: String,
    /// How many keys; the fewer, the more contention.
    pub keys: usize,
    /// How many threads each process has.
    pub threads: usize,
    /// For how long.
    pub duration: Duration,
    /// Repeats the same choices.
    pub seed: u64,
    /// Whether shared mode is used.
    pub shared: bool,
    /// Whether permits are used.
    pub permits: bool,
    /// Where histories are written.
    pub directory: PathBuf,
}

/// What came of a stress run.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// How many processes took part.
    pub processes: usize,
    /// What the history amounts to; it holds no violation.
    pub summary: Summary,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} grants to {} processes, {} of them shared or permits, at most {} at once: no violation",
            self.summary.grants, self.processes, self.summary.together, self.summary.most_at_once
        )
    }
}

/// How long a stress run takes: `LOCKTEST_SECONDS`, else 2 s.
#[must_use]
pub fn duration() -> Duration {
    let seconds = std::env::var("LOCKTEST_SECONDS");
    Duration::from_secs(seconds.ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

impl Plan {
    /// Three threads on four keys, in the modes that are declared, for [`duration`].
    #[must_use]
    pub fn new(namespace: &str, capabilities: &Capabilities, directory: PathBuf) -> Self {
        Self {
            namespace: namespace.to_owned(),
            keys: 4,
            threads: 3,
            duration: duration(),
            seed: u64::from(std::process::id()),
            shared: capabilities.shared,
            permits: capabilities.permits,
            directory,
        }
    }

    /// The same key always takes the same kinds of mode, so that none conflicts.
    fn mode(&self, key: usize, random: &mut Random) -> lock_core::Result<Mode> {
        let alone = random.below(3) == 0;
        match key % 3 {
            1 if self.shared && !alone => Ok(Mode::Shared),
            2 if self.permits && !alone => Mode::permits(1 + random.below(2) as u32, 3),
            _ => Ok(Mode::Exclusive),
        }
    }
}

/// Runs the plan in `processes` second processes, or in this one where none can join, and judges it.
///
/// # Errors
/// When an acquire fails, nothing was granted, or the history shows a violation.
///
/// # Cancel safety
/// The second processes are killed.
pub async fn run(kit: &dyn Kit, plan: &Plan, processes: usize) -> Outcome<Verdict> {
    if kit.spec().is_err() {
        let (backend, alone) = (kit.client()?, plan.clone());
        let run = tokio::task::spawn_blocking(move || take_part(&backend, &alone));
        run.await??;
        return judge(plan, 1);
    }
    let mut running = Vec::new();
    for number in 0..processes {
        let mut part = plan.clone();
        part.seed = plan.seed.wrapping_add(number as u64) << 8;
        let agent = Agent::spawn(kit)?;
        let pending = agent.ask(&Ask::on(Act::Stress(part), ""))?;
        running.push((agent, pending));
    }
    for (_agent, pending) in running {
        match pending.answer().await? {
            Answer::Count(grants) if grants > 0 => {}
            other => return Err(Failure::new(format!("a process got nothing: {other:?}"))),
        }
    }
    judge(plan, processes)
}

fn judge(plan: &Plan, processes: usize) -> Outcome<Verdict> {
    let summary = history::check(&history::read(&plan.directory)?).map_err(|violations| {
        let first = violations.first().map(ToString::to_string);
        Failure::new(format!(
            "{} violations; the first: {}",
            violations.len(),
            first.unwrap_or_default()
        ))
    })?;
    ensure!(summary.grants > 0, "nothing was granted");
    Ok(Verdict { processes, summary })
}

/// This process's part of a plan. Returns how many grants it got.
///
/// # Errors
/// When an acquire fails or the history cannot be written.
///
/// # Blocking
/// For the plan's duration.
pub(crate) fn take_part(backend: &Arc<dyn LockBackend>, plan: &Plan) -> Outcome<usize> {
    let recorder = Recorder::create(&plan.directory)?;
    let until = Instant::now() + plan.duration;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|number| {
                let seed = plan.seed.wrapping_add(number as u64);
                let recorder = &recorder;
                scope.spawn(move || one_thread(backend, plan, recorder, until, seed))
            })
            .collect();
        let mut grants = 0;
        for thread in threads {
            grants += thread
                .join()
                .map_err(|_| Failure::new("a stress thread panicked"))??;
        }
        Ok(grants)
    })
}

fn one_thread(
    backend: &Arc<dyn LockBackend>,
    plan: &Plan,
    recorder: &Recorder,
    until: Instant,
    seed: u64,
) -> Outcome<usize> {
    let mut random = Random::new(seed);
    let mut grants = 0;
    while !until.has_passed() {
        let number = random.below(plan.keys);
        let key = LockKey::new(format!("key-{number}"))?.in_namespace(&plan.namespace)?;
        let options = AcquireOptions::new()
            .mode(plan.mode(number, &mut random)?)
            .priority(random.below(3) as i8);
        let lock = Lock::new(Arc::clone(backend), key).with_options(options);
        let granted = match random.below(4) {
            0 => lock.try_acquire().wait()?,
            1 => lock.try_acquire_for(Duration::from_micros(500)).wait()?,
            _ => Some(lock.acquire().wait()?),
        };
        let Some(guard) = granted else { continue };
        grants += 1;
        recorder.enter(&guard)?;
        std::thread::yield_now();
        recorder.leave(&guard)?;
        match random.below(2) {
            0 => drop(guard),
            _ => drop(guard.release_blocking()?),
        }
    }
    Ok(grants)
}
