//! Many processes, each with many waiters for one key: what a hand-over costs the server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lock_benches::{Bar, Role, Round, Session, Table};
use lock_testkit::services::etcd::EtcdCluster;

use super::{Bench, ours, started};

const ROLE: &str = "waiters";
const PROCESSES: usize = 16;
const FEW: usize = 16;
const MANY: usize = 1000;
const WINDOW: Duration = Duration::from_secs(2);
/// Within this time all waiters are queued.
const PATIENCE: Duration = Duration::from_secs(60);

impl Bench {
    pub(crate) fn crowd(&self, session: &mut Session) -> Result<()> {
        let cluster = &self.one;
        let measure = |round: &mut Round| {
            for waiters in [FEW, MANY] {
                let cost = cost_of_a_handover(cluster, PROCESSES, waiters)?;
                round.record(format!("messages, {waiters} waiters"), cost.messages);
                round.record(format!("failed acquires, {waiters} waiters"), cost.failed);
                round.record(
                    format!("handovers a second, {waiters} waiters"),
                    cost.per_second,
                );
            }
            Ok(())
        };
        let name = format!("messages of a handover, {PROCESSES} processes");
        let Some(rounds) = session.section(&name, measure)? else {
            return Ok(());
        };
        let name =
            format!("messages of a handover, {MANY} / {FEW} waiters in {PROCESSES} processes");
        let ratio = |round: &Round| {
            let of = |waiters| round.get(&format!("messages, {waiters} waiters"));
            of(MANY) / of(FEW)
        };
        session.judge(&rounds, &Bar::at_most(name, 1.1), ratio);

        let mut table = Table::new(["processes", "messages of a handover", "handovers a second"]);
        for processes in [1, 2, 4, 8, 16, 32, 64] {
            let cost = cost_of_a_handover(cluster, processes, 64)?;
            table
                .row([processes as f64, cost.messages, cost.per_second].map(|f| format!("{f:.1}")));
        }
        session.show(format_args!("64 waiters in all:\n\n{table}"));
        Ok(())
    }
}

struct Cost {
    failed: f64,
    messages: f64,
    per_second: f64,
}

fn cost_of_a_handover(cluster: &EtcdCluster, processes: usize, waiters: usize) -> Result<Cost> {
    // A key of its own: what an earlier crowd leaves for its lease to end stands in no way.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let key = format!("crowd-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let backend = ours::open(&cluster.endpoints())?;
    let lock = ours::lock(&backend, &key)?;
    let held = lock.acquire().wait()?;
    let mut crowd = (0..processes)
        .map(|number| {
            let share = waiters / processes + usize::from(number < waiters % processes);
            Waiters::start(&cluster.endpoints(), &key, share)
        })
        .collect::<Result<Vec<_>>>()?;
    for process in &mut crowd {
        process.wait_until_it_waits()?;
    }
    wait_for_line(cluster, &key, waiters)?;
    let messages = || anyhow::Ok(started(cluster.nodes()[0].metrics())?.messages());
    let counts = |crowd: &mut [Waiters]| {
        crowd
            .iter_mut()
            .try_fold([0, 0], |[all, all_failed], process| {
                let [grants, failed] = process.counts()?;
                anyhow::Ok([all + grants, all_failed + failed])
            })
    };
    drop(held);

    let (messages_before, [grants_before, _]) = (messages()?, counts(&mut crowd)?);
    // sleep: the window of the measurement
    std::thread::sleep(WINDOW);
    let (messages_after, [grants_after, failed]) = (messages()?, counts(&mut crowd)?);
    let handovers = (grants_after - grants_before) as f64;
    Ok(Cost {
        failed: failed as f64,
        messages: (messages_after - messages_before) / handovers,
        per_second: handovers / WINDOW.as_secs_f64(),
    })
}

/// Until so many wait. Asked of the store: asking through the library is work for the server.
fn wait_for_line(cluster: &EtcdCluster, key: &str, waiters: usize) -> Result<()> {
    let (start, within) = (Instant::now(), format!("/{key}/w/"));
    while start.elapsed() < PATIENCE {
        // A server that is busy with all who come may be late with its answer.
        let names = cluster.keys("locks/locks/").unwrap_or_default();
        if names.iter().filter(|name| name.contains(&within)).count() >= waiters {
            return Ok(());
        }
        // sleep: the interval of a poll
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{waiters} waiters were not queued within {PATIENCE:?}")
}

/// A process with waiters, seen from here. Ends in order when dropped.
struct Waiters {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Waiters {
    fn start(endpoints: &[String], key: &str, waiters: usize) -> Result<Self> {
        let arguments = [endpoints.join(","), key.to_owned(), waiters.to_string()];
        let mut child = Role::new(ROLE)
            .command(&arguments.each_ref().map(String::as_str))?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = child.stdin.take();
        let answers = child.stdout.take().context("standard output is piped")?;
        let answers = BufReader::new(answers);
        Ok(Self {
            child,
            questions,
            answers,
        })
    }

    fn wait_until_it_waits(&mut self) -> Result<()> {
        self.answer().map(drop)
    }

    /// How many acquires were granted, and how many failed.
    fn counts(&mut self) -> Result<[u64; 2]> {
        let questions = self.questions.as_mut().context("the process has ended")?;
        writeln!(questions)?;
        questions.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<[u64; 2]> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("a process with waiters has ended");
        }
        let (grants, failed) = line.trim().split_once(' ').context("two counts")?;
        Ok([grants.parse()?, failed.parse()?])
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        // The end of its input tells the process to end.
        self.questions = None;
        // Nothing is left to do when it cannot be waited for.
        let _ = self.child.wait();
    }
}

/// The process: waits as often as told, and says how many grants there were whenever it is asked.
pub(crate) fn play(name: &str, arguments: &[String]) -> Result<ExitCode> {
    let (ROLE, [endpoints, key, waiters]) = (name, arguments) else {
        bail!("no role `{name}` with {arguments:?}");
    };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let waiters: usize = waiters.parse()?;
    let backend = ours::open(&endpoints)?;
    let lock = ours::lock(&backend, key)?;
    let grants = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(AtomicU64::new(0));
    let ending = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    for _ in 0..waiters {
        let (lock, grants) = (lock.clone(), Arc::clone(&grants));
        let (failed, ending) = (Arc::clone(&failed), Arc::clone(&ending));
        runtime.spawn(async move {
            while !ending.load(Ordering::Relaxed) {
                // A server that is late while all come at once: this one comes again.
                let Ok(guard) = lock.acquire().await else {
                    failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                grants.fetch_add(1, Ordering::Relaxed);
                // What is in doubt the backend goes on to release.
                drop(guard.release().await);
            }
        });
    }
    let say = || -> Result<()> {
        let [grants, failed] = [&grants, &failed].map(|count| count.load(Ordering::Relaxed));
        println!("{grants} {failed}");
        Ok(std::io::stdout().flush()?)
    };
    say()?;
    for line in std::io::stdin().lines() {
        line?;
        say()?;
    }
    ending.store(true, Ordering::Relaxed);
    // Whoever still waits is turned away. What is not confirmed in time ends with the lease.
    drop(runtime.block_on(backend.close()));
    Ok(ExitCode::SUCCESS)
}
