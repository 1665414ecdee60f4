//! A cron job on three hosts that must run once per period, whoever runs it.
//!
//! ```text
//! cargo run -p lock-examples --example cron_leader
//! ```
//!
//! On every host the cron starts the job at about the same time: the first one takes the lock and runs
//! it, the others skip it. `hold_at_least` keeps the lock past the end of a short job, for hosts whose
//! clock is a little late. When the leader is killed, the next tick finds another one, and the fencing
//! token keeps the dead leader's last write out. The hosts here are child processes on one directory;
//! for several machines plug in a network backend: this code stays as it is.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use lock_core::{FencedFile, FencingNumber};
use lock_manager::{AcquireOptions, Config, FencingToken, LockManager};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PERIOD: Duration = Duration::from_millis(1000);
/// Shorter than the period, longer than the clocks of any two hosts differ.
const CLOSED_FOR: Duration = Duration::from_millis(700);
/// A tick whose job never ends.
const ENDLESS: &str = "endless";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, directory] => run_host(name, Path::new(directory)),
        _ => watch_hosts(),
    }
}

/// What runs on each host: one line in per tick of its cron, one line out.
fn run_host(name: &str, directory: &Path) -> Outcome {
    let once_per_period = AcquireOptions::new().hold_at_least(CLOSED_FOR).label(name);
    let locks = LockManager::new(Config::from_file(directory.join("locks.toml"))?)?;
    let lock = locks.lock("nightly-report")?.with_options(once_per_period);
    let report = FencedFile::new(directory.join("report"));
    println!("ready");
    for tick in io::stdin().lines() {
        let tick = tick?;
        let Some(guard) = lock.try_acquire().wait()? else {
            println!("skipped");
            continue;
        };
        let token = guard.fencing_token().ok_or("held exclusively")?;
        if tick == ENDLESS {
            println!("hangs {token}");
            loop {
                thread::park();
            }
        }
        report.write(token, format!("{tick}, by {name}").as_bytes())?;
        guard.release_blocking()?;
        println!("ran {token}");
    }
    Ok(())
}

fn watch_hosts() -> Outcome {
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("report");
    let locks = directory.path().join("locks");
    std::fs::write(
        directory.path().join("locks.toml"),
        format!("pool = \"processes\"\nhosts = 1\n[file]\ndirectory = {locks:?}\n"),
    )?;
    let start = |name| Host::start(name, directory.path());
    let mut hosts = ["alpha", "beta", "gamma"]
        .map(start)
        .into_iter()
        .collect::<Outcome<Vec<_>>>()?;
    let mut highest = None;
    for period in ["period 1", "period 2"] {
        let (leader, token) = tick(&mut hosts, period)?;
        println!(
            "{period}: {} ran the job with token {token}, the others skipped it",
            hosts[leader].name
        );
        assert!(highest < Some(token), "tokens rise");
        highest = Some(token);
        // Next time another host's clock is the first.
        hosts.rotate_left(1);
        // sleep: the period of the cron job
        thread::sleep(PERIOD);
    }

    let (leader, late) = tick(&mut hosts, ENDLESS)?;
    let dead = hosts.remove(leader);
    println!(
        "period 3: {} hangs with token {late} and is killed",
        dead.name
    );
    drop(dead);

    let (leader, token) = tick(&mut hosts, "period 3 again")?;
    let name = hosts[leader].name;
    println!("period 3 again: {name} takes over with token {token}");
    assert!(token > late);

    // What a leader would write that was only paused, not dead.
    let refused = FencedFile::new(&report)
        .write(late, b"too late")
        .expect_err("a stale token");
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(
        std::fs::read_to_string(report)?,
        format!("period 3 again, by {name}")
    );
    println!("a late write of the dead leader: {refused}");
    Ok(())
}

/// Lets the cron of every host tick; returns which one ran the job, and with which token.
///
/// One after the other: no two clocks agree, and the job of the first host is over, and its lock
/// would be free again, when the next one tries.
fn tick(hosts: &mut [Host], job: &str) -> Outcome<(usize, FencingToken)> {
    let mut leaders = Vec::new();
    for (at, host) in hosts.iter_mut().enumerate() {
        writeln!(host.cron, "{job}")?;
        if let Some((_, token)) = host.answer()?.split_once(' ') {
            leaders.push((at, parse(token)?));
        }
    }
    assert_eq!(leaders.len(), 1, "one host runs the job: {leaders:?}");
    Ok(leaders[0])
}

/// A host: this program again, as a child process.
struct Host {
    name: &'static str,
    process: Child,
    cron: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Host {
    fn start(name: &'static str, directory: &Path) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(name)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let cron = process.stdin.take().ok_or("stdin is piped")?;
        let answers = BufReader::new(process.stdout.take().ok_or("stdout is piped")?).lines();
        let mut host = Self {
            name,
            process,
            cron,
            answers,
        };
        assert_eq!(host.answer()?, "ready");
        Ok(host)
    }

    fn answer(&mut self) -> Outcome<String> {
        Ok(self.answers.next().ok_or("the host is gone")??)
    }
}

impl Drop for Host {
    /// SIGKILL: no destructor of the host runs, the kernel alone gives the lock back.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads a token as `Display` wrote it.
fn parse(token: &str) -> Outcome<FencingToken> {
    let (epoch, number) = token.split_once(':').ok_or("epoch:number")?;
    let number = FencingNumber::from_raw(number.parse()?).ok_or("below 2^63")?;
    Ok(FencingToken::new(epoch.parse()?, number))
}
