//! Many processes and threads on few keys in all modes, and a verdict on what they did.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{AcquireOptions, Capabilities, Lock, LockBackend, LockKey, Mode};
use serde::{Deserialize, Serialize};

use crate::history::{self, Event, Recorder, Summary, What};
use crate::process::{Act, Agent, Answer, Ask, Pending};
use crate::random::Random;
use crate::{Failure, Kit, Outcome};

/// What a stress run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the keys live.
    pub namespace: String,
    /// How many second processes take part; none does where none can join.
    pub processes: usize,
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
    /// How often, about, one of the processes is killed and replaced; `None`: never. Not for leases: a holder whose lease ended before it was killed is taken for one
    /// that held until then.
    pub kill_every: Option<Duration>,
    /// Whether servers are in trouble meanwhile: an attempt that ends in an error was not granted.
    pub trouble: bool,
    /// Where histories are written.
    pub directory: PathBuf,
}

/// What came of a stress run.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// How many processes took part.
    pub processes: usize,
    /// How many of them were killed.
    pub killed: usize,
    /// What the history amounts to; it holds no violation.
    pub summary: Summary,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} grants to {} processes ({} killed), {} of them shared or permits, at most {} at once: \
             no violation",
            self.summary.grants,
            self.processes,
            self.killed,
            self.summary.together,
            self.summary.most_at_once
        )
    }
}

/// How long a stress run takes: `LOCKTEST_SECONDS`, else 2 s.
#[must_use]
pub fn duration() -> Duration {
    let seconds = std::env::var("LOCKTEST_SECONDS");
    Duration::from_secs(seconds.ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

/// From this duration on a run is as large as the machine is expected to bear.
const LONG: Duration = Duration::from_secs(30);

impl Plan {
    /// In the modes that are declared, for [`duration`]: three processes of three threads on four
    /// keys, or, when that is half a minute or more, eight of eight on twenty.
    #[must_use]
    pub fn new(namespace: &str, capabilities: &Capabilities, directory: PathBuf) -> Self {
        let duration = duration();
        let (processes, threads, keys) = if duration < LONG {
            (3, 3, 4)
        } else {
            (8, 8, 20)
        };
        Self {
            namespace: namespace.to_owned(),
            processes,
            keys,
            threads,
            duration,
            seed: u64::from(std::process::id()),
            shared: capabilities.shared,
            permits: capabilities.permits,
            kill_every: None,
            trouble: false,
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

/// Runs the plan in second processes, or in this one where none can join, and judges it.
///
/// # Errors
/// When an acquire fails, nothing was granted, or the history shows a violation.
///
/// # Cancel safety
/// The second processes are killed.
pub async fn run(kit: &dyn Kit, plan: &Plan) -> Outcome<Verdict> {
    if kit.spec().is_err() {
        return run_here(vec![kit.client()?], plan).await;
    }
    let mut crew = Crew {
        kit,
        plan,
        until: Instant::now() + plan.duration,
        started: 0,
    };
    let mut running = Vec::new();
    for _ in 0..plan.processes {
        running.push(crew.start()?);
    }
    let deaths = match plan.kill_every {
        None => Vec::new(),
        Some(pause) => crew.kill_and_replace(&mut running, pause).await?,
    };
    for (_agent, pending) in running {
        match pending.answer().await? {
            // One that replaced another may have come too late for any.
            Answer::Count(grants) if grants > 0 || !deaths.is_empty() => {}
            other => return Err(Failure::new(format!("a process got nothing: {other:?}"))),
        }
    }
    let verdict = judge(plan, crew.started, &deaths)?;
    if plan.duration >= LONG {
        show(&verdict);
    }
    Ok(verdict)
}

/// Runs the plan in this process, with the threads of a process for each client, and judges it.
///
/// # Errors
/// As [`run`].
///
/// # Cancel safety
/// The threads go on until the plan's end.
pub async fn run_here(clients: Vec<Arc<dyn LockBackend>>, plan: &Plan) -> Outcome<Verdict> {
    let parts: Vec<_> = (clients.into_iter().enumerate())
        .map(|(number, client)| {
            let mut part = plan.clone();
            part.seed = plan.seed.wrapping_add(number as u64) << 8;
            tokio::task::spawn_blocking(move || take_part(&client, &part))
        })
        .collect();
    for part in parts {
        part.await??;
    }
    judge(plan, 1, &[])
}

#[expect(
    clippy::print_stderr,
    reason = "whoever waits for so long wants the figures"
)]
fn show(verdict: &Verdict) {
    eprintln!("{verdict}");
}

/// Starts the processes of a run.
struct Crew<'a> {
    kit: &'a dyn Kit,
    plan: &'a Plan,
    until: Instant,
    started: usize,
}

/// A process was killed after this moment, not before.
struct Death {
    process: u32,
    at: Instant,
}

impl Crew<'_> {
    fn start(&mut self) -> Outcome<(Agent, Pending)> {
        let mut part = self.plan.clone();
        part.seed = self.plan.seed.wrapping_add(self.started as u64) << 8;
        part.duration = self.until.saturating_duration_since(Instant::now());
        self.started += 1;
        let agent = Agent::spawn(self.kit)?;
        let pending = agent.ask(&Ask::on(Act::Stress(part), ""))?;
        Ok((agent, pending))
    }

    async fn kill_and_replace(
        &mut self,
        running: &mut [(Agent, Pending)],
        every: Duration,
    ) -> Outcome<Vec<Death>> {
        let mut random = Random::new(self.plan.seed);
        let mut deaths = Vec::new();
        loop {
            let percent = 50 + random.below(100) as u32;
            // sleep: the moment of a crash is chosen by nobody
            tokio::time::sleep(every * percent / 100).await;
            if self.until.has_passed() {
                return Ok(deaths);
            }
            let (agent, pending) = &mut running[random.below(self.plan.processes)];
            // Invariant: read before the kill, so that whoever held then held until now.
            let at = Instant::now();
            let process = agent.pid();
            agent.kill()?;
            deaths.push(Death { process, at });
            (*agent, *pending) = self.start()?;
        }
    }
}

fn judge(plan: &Plan, processes: usize, deaths: &[Death]) -> Outcome<Verdict> {
    let mut events = history::read(&plan.directory)?;
    end_open_holds(&mut events, deaths);
    let summary = history::check(&events).map_err(|violations| {
        let first = violations.first().map(ToString::to_string);
        Failure::new(format!(
            "{} violations; the first: {}",
            violations.len(),
            first.unwrap_or_default()
        ))
    })?;
    ensure!(summary.grants > 0, "nothing was granted");
    Ok(Verdict {
        processes,
        killed: deaths.len(),
        summary,
    })
}

/// A killed process held until the kill what it had not begun to release.
fn end_open_holds(events: &mut Vec<Event>, deaths: &[Death]) {
    let left: HashSet<String> = events
        .iter()
        .filter(|event| event.what == What::Leave)
        .map(|event| event.attempt.clone())
        .collect();
    let ends = |event: &Event| {
        if event.what == What::Leave || left.contains(&event.attempt) {
            return None;
        }
        let mut of_process = deaths.iter().filter(|death| death.process == event.process);
        let death = of_process.find(|death| death.at.as_nanos() > event.at)?;
        Some(Event {
            at: death.at.as_nanos(),
            what: What::Leave,
            ..event.clone()
        })
    };
    let ended: Vec<Event> = events.iter().filter_map(ends).collect();
    events.extend(ended);
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
        let answer = match random.below(4) {
            0 => lock.try_acquire().wait(),
            1 => lock.try_acquire_for(Duration::from_micros(500)).wait(),
            _ => lock.acquire().wait().map(Some),
        };
        let granted = match answer {
            Err(_) if plan.trouble => None,
            answer => answer?,
        };
        let Some(guard) = granted else { continue };
        grants += 1;
        recorder.enter(&guard)?;
        std::thread::yield_now();
        recorder.leave(&guard)?;
        match random.below(2) {
            0 => drop(guard),
            _ => match guard.release_blocking() {
                Err(_) if plan.trouble => {}
                answer => drop(answer?),
            },
        }
    }
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ModeRecord;

    #[test]
    fn a_killed_process_held_until_the_kill() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let enter = |process, at: Instant, fencing| Event {
            at: at.as_nanos(),
            process,
            key: ":k".to_owned(),
            attempt: format!("of {process}"),
            what: What::Enter {
                mode: ModeRecord::Exclusive,
                fencing: Some(fencing),
            },
        };
        let deaths = [Death {
            process: 1,
            at: now + second * 2,
        }];
        for (intruder, violations) in [(now + second, 1), (now + second * 3, 0)] {
            let mut events = vec![enter(1, now, 1), enter(2, intruder, 2)];
            end_open_holds(&mut events, &deaths);
            let found = history::check(&events).map_or_else(|found| found.len(), |_| 0);
            assert_eq!(found, violations);
        }
    }
}
