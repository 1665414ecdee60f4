//! Locks as other programs make them of SQLite.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lock_benches::{Role, Rounds, Session, Table, python_with};
use lock_core::{Lock, LockGuard};
use rusqlite::Connection;

use crate::bare::Bare;
use crate::handover::passes;
use crate::party::{Party, answer, monotonic_nanos};
use crate::uncontended::lock;

pub(crate) const ROLE: &str = "peer";
const CYCLES: u32 = 500;
const OURS: &str = "ours";
const ROW: &str = "a row, looked at every 10 ms";
const KEPT: &str = "an open transaction, SQLite's own waiting";
const REOPENED: &str = "the same, opened for each lock";
const FILELOCK: &str = "filelock.ReadWriteLock (Python)";
const NAMES: [&str; 5] = [OURS, ROW, KEPT, REOPENED, FILELOCK];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    if !session.wants("peers: uncontended") && !session.wants("peers: hand-over") {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let python = python_with("sqlite", &["filelock==4.2.11"])?;
    let single = session.section("peers: uncontended", |round| {
        for name in NAMES {
            let mut party = start(&python, directory.path(), name)?;
            party.tell(&format!("cycles {CYCLES}"))?;
            // The first ones import, create and prepare.
            party.hear()?;
            party.tell(&format!("cycles {CYCLES}"))?;
            let nanos: f64 = party.hear()?.parse()?;
            round.record(name, nanos / 1000.0);
        }
        Ok(())
    })?;
    let passed = session.section("peers: hand-over", |round| {
        // A new one each round: a row that was held at the end of one is held for ever.
        let directory = tempfile::tempdir()?;
        let start = |name: &str| start(&python, directory.path(), name);
        for name in NAMES {
            // The others wait for up to a tenth of a second.
            let count = if name == OURS { 100 } else { 6 };
            let samples = passes(|| start(name), count, 2..60)?;
            round.record(name, samples.percentile(50.0));
        }
        Ok(())
    })?;
    if let (Some(single), Some(passed)) = (&single, &passed) {
        session.show(table(single, passed));
    }
    Ok(())
}

fn table(single: &Rounds, passed: &Rounds) -> Table {
    let heading = [
        "lock",
        "uncontended, us",
        "hand-over p50, us",
        "fenced",
        "queue",
    ];
    let mut table = Table::new(heading);
    for name in NAMES {
        let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
        table.row([
            name.to_owned(),
            format!("{:.1}", single.median(name)),
            format!("{:.0}", passed.median(name)),
            yes(name == OURS || name == ROW),
            yes(name == OURS),
        ]);
    }
    table
}

fn start(python: &Path, directory: &Path, name: &str) -> Result<Party> {
    if name == FILELOCK {
        let mut command = Command::new(python);
        command.args(["-c", include_str!("peers.py")]);
        command.arg(directory.join("filelock.db"));
        return Party::spawn(command);
    }
    let path = directory.to_str().context("a directory in UTF-8")?;
    Party::spawn(Role::new(ROLE).command(&[name, path])?)
}

/// The part that a second process plays.
pub(crate) fn play(arguments: &[String]) -> Result<()> {
    let [name, directory] = arguments else {
        bail!("a peer needs a name and a directory");
    };
    let mut peer = Peer::open(name, Path::new(directory))?;
    answer("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["take"] => {
                peer.take()?;
                answer(monotonic_nanos())?;
            }
            ["give"] => {
                let before = monotonic_nanos();
                peer.give()?;
                // sleep: until the other party has it, for an answer would wake a third process
                std::thread::sleep(Duration::from_millis(1));
                answer(before)?;
            }
            ["cycles", count] => {
                let count: u64 = count.parse()?;
                let start = monotonic_nanos();
                for _ in 0..count {
                    peer.take()?;
                    peer.give()?;
                }
                answer((monotonic_nanos() - start) / count)?;
            }
            _ => bail!("a peer knows no `{line}`"),
        }
    }
    Ok(())
}

enum Peer {
    Ours(Lock, Option<LockGuard>),
    /// Whoever finds the row taken looks again a while later.
    Row(Bare),
    /// The lock lasts as long as a transaction; there is a file for each name.
    Kept(Connection),
    /// With nothing kept between two locks, as filelock does it.
    Reopened(PathBuf, Option<Connection>),
}

impl Peer {
    fn open(name: &str, directory: &Path) -> Result<Self> {
        Ok(match name {
            OURS => Self::Ours(lock(&directory.join("ours/locks.db"), "passed")?, None),
            ROW => Self::Row(Bare::open(&directory.join("row.db"))?),
            KEPT => Self::Kept(open(&directory.join("kept.db"))?),
            REOPENED => Self::Reopened(directory.join("reopened.db"), None),
            _ => bail!("no peer `{name}`"),
        })
    }

    fn take(&mut self) -> Result<()> {
        match self {
            Self::Ours(lock, guard) => *guard = Some(lock.acquire().wait()?),
            Self::Row(bare) => {
                while !bare.try_take("passed", owner())? {
                    // sleep: the poll that is measured
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Self::Kept(connection) => connection.execute_batch("BEGIN EXCLUSIVE")?,
            Self::Reopened(path, place) => {
                let connection = open(path)?;
                connection.execute_batch("BEGIN EXCLUSIVE")?;
                *place = Some(connection);
            }
        }
        Ok(())
    }

    fn give(&mut self) -> Result<()> {
        match self {
            Self::Ours(_, guard) => {
                let guard = guard.take().context("nothing is held")?;
                ensure!(guard.fencing_token().is_some());
                guard.release_blocking()?;
            }
            Self::Row(bare) => bare.give("passed", owner())?,
            Self::Kept(connection) => connection.execute_batch("ROLLBACK")?,
            Self::Reopened(_, place) => {
                let connection = place.take().context("nothing is held")?;
                connection.execute_batch("ROLLBACK")?;
            }
        }
        Ok(())
    }
}

/// Waits as SQLite does by itself, up to a tenth of a second between two looks.
fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "memory")?;
    Ok(connection)
}

fn owner() -> i64 {
    i64::from(std::process::id())
}
