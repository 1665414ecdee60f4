//! A process that takes part in a measurement: told in lines, answering in lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lock_benches::Role;
use lock_core::Lock;

use crate::bare::Bare;
use crate::uncontended::{cycle, lock};

pub(crate) const ROLE: &str = "party";
pub(crate) const ECHO: &str = "echo";

/// The part that a second process plays.
pub(crate) fn play(arguments: &[String]) -> Result<()> {
    let [directory, name] = arguments else {
        bail!("a party needs a directory and a name");
    };
    let directory = Path::new(directory);
    let bare = Bare::open(&directory.join("bare.db"))?;
    let ours = lock(&directory.join("ours/locks.db"), name)?;
    cycle(&ours)?;
    let mut guard = None;
    answer("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["take"] => {
                guard = Some(ours.acquire().wait()?);
                answer(monotonic_nanos())?;
            }
            ["give"] => {
                let before = monotonic_nanos();
                let guard = guard.take().context("nothing is held")?;
                guard.release_blocking()?;
                // sleep: until the other party has it, for an answer would wake a third process
                std::thread::sleep(Duration::from_millis(1));
                answer(before)?;
            }
            ["bare", until] => {
                let owner = i64::from(std::process::id());
                answer(count(until, || bare.cycle(name, owner))?)?;
            }
            ["ours", until] => answer(count(until, || cycle(&ours))?)?,
            _ => bail!("a party knows no `{line}`"),
        }
    }
    Ok(())
}

/// Sends every datagram back.
pub(crate) fn echo(arguments: &[String]) -> Result<()> {
    let [to, own] = arguments else {
        bail!("an echo needs two sockets");
    };
    let socket = std::os::unix::net::UnixDatagram::bind(own)?;
    let mut buffer = [0; 64];
    socket.send_to(b"ready", to)?;
    loop {
        let len = socket.recv(&mut buffer)?;
        socket.send_to(&buffer[..len], to)?;
    }
}

/// How often it can be done until then. All parties begin and end at once.
fn count(until: &str, mut call: impl FnMut() -> Result<()>) -> Result<u64> {
    let (from, until) = until.split_once('-').context("from and until")?;
    let (from, until): (u64, u64) = (from.parse()?, until.parse()?);
    let mut calls = 0;
    loop {
        call()?;
        let now = monotonic_nanos();
        if now >= until {
            return Ok(calls);
        }
        calls += u64::from(now >= from);
    }
}

pub(crate) fn answer(what: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

/// The clock that all processes of the machine share.
pub(crate) fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Another process, as its parent sees it. Ended with this value.
pub(crate) struct Party {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Party {
    pub(crate) fn start(directory: &Path, name: &str) -> Result<Self> {
        let directory = directory.to_str().context("a directory in UTF-8")?;
        Self::spawn(Role::new(ROLE).command(&[directory, name])?)
    }

    /// Starts a command that plays a party.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("a pipe to the party")?;
        let stdout = child.stdout.take().context("a pipe from the party")?;
        let mut party = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        };
        anyhow::ensure!(party.hear()? == "ready", "a party was not ready");
        Ok(party)
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").context("telling a party")
    }

    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "a party ended early");
        Ok(line.trim().to_owned())
    }

    pub(crate) fn hear_number(&mut self) -> Result<u64> {
        let line = self.hear()?;
        line.parse().with_context(|| format!("a party said {line}"))
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

/// Waits on a lock in a thread, and tells when it came.
pub(crate) fn wait_apart(lock: &Lock) -> std::thread::JoinHandle<lock_core::Result<u64>> {
    let waiting = lock.acquire();
    std::thread::spawn(move || {
        let guard = waiting.wait()?;
        let taken = monotonic_nanos();
        drop(guard);
        Ok(taken)
    })
}

/// How many calls each party makes while all of them do `what`, in this time.
pub(crate) fn counts(parties: &mut [Party], what: &str, time: Duration) -> Result<Vec<u64>> {
    let start = Instant::now();
    let from = monotonic_nanos() + 20_000_000;
    let until = from + time.as_nanos() as u64;
    for party in &mut *parties {
        party.tell(&format!("{what} {from}-{until}"))?;
    }
    let counts = parties.iter_mut().map(Party::hear_number).collect();
    anyhow::ensure!(start.elapsed() < time * 20, "the parties took too long");
    counts
}
