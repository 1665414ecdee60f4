//! One of the processes that compete for one key.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lock_benches::Role;
use lock_core::clock::Instant;

use crate::contender::{Contender, Seat};

pub(crate) const ROLE: &str = "worker";

/// One time that a process held the lock, by the clock of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) asked: Instant,
    pub(crate) acquired: Instant,
    /// Just before the release was begun.
    pub(crate) released: Instant,
}

/// A process that competes.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn start(contender: &str, url: &str, hold: Duration) -> Result<Self> {
        let hold = hold.as_micros().to_string();
        let mut child = Role::new(ROLE)
            .command(&[contender, url, &hold])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let output = BufReader::new(output);
        Ok(Self {
            child,
            input,
            output,
        })
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        match self.line()?.as_str() {
            "ready" => Ok(()),
            other => bail!("a worker said `{other}`"),
        }
    }

    /// Lets it compete in a time that all workers are told.
    pub(crate) fn begin(&mut self, start: Instant, end: Instant) -> Result<()> {
        writeln!(self.input, "{} {}", start.as_nanos(), end.as_nanos())?;
        Ok(())
    }

    /// Its turns, once it has ended.
    pub(crate) fn turns(mut self) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        loop {
            let line = self.line()?;
            if line == "end" {
                break;
            }
            let [asked, acquired, released] = instants(&line)?;
            turns.push(Turn {
                asked,
                acquired,
                released,
            });
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("a worker ended with {status}");
        }
        Ok(turns)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a worker ended early");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's side.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let [contender, url, hold] = arguments else {
        bail!("a worker needs contender, URL and hold");
    };
    let hold = Duration::from_micros(hold.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let contender = Contender::open(contender, url)?;
        // The connection is there before the time starts.
        let own = contender.at(&format!("warm-{}", std::process::id()))?;
        own.acquire().await?.release().await?;
        let seat = contender.at("contended")?;
        let mut output = std::io::stdout().lock();
        writeln!(output, "ready")?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let [start, end] = instants(&line)?;
        tokio::time::sleep(start.remaining()).await;
        let turns = compete(&seat, hold, end).await?;
        for turn in turns {
            let times = [turn.asked, turn.acquired, turn.released].map(Instant::as_nanos);
            let [asked, acquired, released] = times;
            writeln!(output, "{asked} {acquired} {released}")?;
        }
        writeln!(output, "end")?;
        Ok(output.flush()?)
    })
}

async fn compete(seat: &Seat, hold: Duration, end: Instant) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    while !end.has_passed() {
        let asked = Instant::now();
        // A peer that sleeps between its polls may find no turn before the end.
        let Ok(held) = tokio::time::timeout(end.remaining(), seat.acquire()).await else {
            break;
        };
        let (held, acquired) = (held?, Instant::now());
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let released = Instant::now();
        held.release().await?;
        turns.push(Turn {
            asked,
            acquired,
            released,
        });
    }
    Ok(turns)
}

fn instants<const N: usize>(line: &str) -> Result<[Instant; N]> {
    let times = line.split_whitespace().map(str::parse);
    let times: Vec<u64> = times.collect::<Result<_, _>>()?;
    let times: [u64; N] = times.try_into().ok().context("not as many times")?;
    Ok(times.map(Instant::from_nanos))
}
