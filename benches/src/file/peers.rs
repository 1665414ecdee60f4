//! The same, by other libraries and by `flock(1)`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lock_benches::{Bar, Round, Rounds, Session, Table, nanoseconds_per_call, python_with};

use crate::contention::{contend, longest_gap, start_all, unevenness, violations};
use crate::handover::passes;
use crate::party::{Kind, Party};

/// Libraries of Python, each as pip wants it.
const PACKAGES: [&str; 3] = ["filelock==4.2.11", "portalocker==4.4.2", "fasteners==0.20"];
const PYTHON: [&str; 3] = ["filelock", "portalocker", "fasteners"];
const RUST: [Kind; 3] = [Kind::Ours, Kind::Flock, Kind::DistributedLock];
const SECTIONS: [&str; 3] = [
    "peers: uncontended",
    "peers: hand-over",
    "peers: four processes on one key",
];
const CYCLES: u32 = 300;
const COMMANDS: u32 = 20;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    if !SECTIONS.iter().any(|section| session.wants(section)) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let peers = Peers::find(directory.path());
    let single = session.section(SECTIONS[0], |round| {
        for name in peers.names() {
            let mut party = peers.start(name)?;
            party.tell(&format!("cycles {CYCLES}"))?;
            // The first ones import, create and map.
            party.hear()?;
            party.tell(&format!("cycles {CYCLES}"))?;
            round.record(micros(name), party.hear_number()? / 1000.0);
        }
        round.record(micros("flock(1)"), peers.command_avoided()?);
        Ok(())
    })?;
    if let Some(rounds) = &single {
        let against = |peer: &'static str| {
            move |round: &Round| round.get(&micros("ours")) / round.get(&micros(peer))
        };
        let bar = Bar::at_most("file-uncontended-vs-filelock", 1.0 / 5.0);
        match peers.python {
            Some(_) => {
                session.judge(rounds, &bar, against("filelock"));
            }
            None => println!("bar {}: not measured, without Python", bar.name()),
        }
        let bar = Bar::at_most("file-uncontended-vs-flock-command", 1.0 / 100.0);
        session.judge(rounds, &bar, against("flock(1)"));
    }
    let passed = session.section(SECTIONS[1], |round| {
        for name in peers.names() {
            // Those who poll take up to a quarter of a second.
            let count = if RUST.iter().any(|kind| kind.name() == name) {
                100
            } else {
                6
            };
            let samples = passes(|| peers.start(name), count, 2..60)?;
            round.record(micros(name), samples.percentile(50.0));
        }
        Ok(())
    })?;
    let fought = session.section(SECTIONS[2], |round| {
        for name in peers.names() {
            let parties = start_all(|| peers.start(name), 4)?;
            let shares = contend(parties, 200, 1_000)?;
            round.record(format!("{name}: violations"), violations(&shares) as f64);
            round.record(format!("{name}: max/min"), unevenness(&shares));
            round.record(format!("{name}: longest gap, us"), longest_gap(&shares));
        }
        Ok(())
    })?;
    if let (Some(single), Some(passed), Some(fought)) = (&single, &passed, &fought) {
        session.show(table(&peers, single, passed, fought));
    }
    if let Some(fought) = &fought {
        let ours: f64 = fought
            .iter()
            .map(|round| round.get("ours: violations"))
            .sum();
        ensure!(ours == 0.0, "two holders of ours were inside at once");
        let theirs = |round: &Round| round.get("distributed-lock: violations");
        let total: f64 = fought.iter().map(theirs).sum();
        session.show(format_args!(
            "distributed-lock-file let two holders in at once {total} times; ours never"
        ));
    }
    Ok(())
}

fn micros(name: &str) -> String {
    format!("{name}, us")
}

struct Peers<'a> {
    directory: &'a Path,
    python: Option<PathBuf>,
}

impl<'a> Peers<'a> {
    /// All peers, or those without Python where its libraries cannot be had.
    fn find(directory: &'a Path) -> Self {
        let python = python_with("file", &PACKAGES);
        if let Err(error) = &python {
            println!("\nwithout {}: {error:#}", PYTHON.join(", "));
        }
        let python = python.ok();
        Self { directory, python }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        let python = self.python.iter().flat_map(|_| PYTHON);
        RUST.iter().map(|kind| kind.name()).chain(python)
    }

    fn start(&self, name: &str) -> Result<Party> {
        if let Some(kind) = RUST.into_iter().find(|kind| kind.name() == name) {
            return Party::start(kind, self.directory);
        }
        let python = self.python.as_ref().context("there is no Python")?;
        let mut command = Command::new(python);
        command.args(["-c", include_str!("peers.py"), name]);
        command.arg(self.directory);
        Party::spawn(command)
    }

    /// What `flock(1)` adds to the start of a command, in microseconds.
    fn command_avoided(&self) -> Result<f64> {
        let file = self.directory.join("command");
        let mut failed = Ok(());
        let mut run = |command: &mut Command| {
            let status = command.stdin(Stdio::null()).status();
            if !status.as_ref().is_ok_and(|status| status.success()) {
                failed = status.map(drop).context("running flock(1) and true(1)");
            }
        };
        let with = nanoseconds_per_call(COMMANDS, || {
            run(Command::new("flock").arg(&file).arg("true"));
        });
        let without = nanoseconds_per_call(COMMANDS, || run(&mut Command::new("true")));
        failed.map(|()| (with - without) / 1000.0)
    }
}

fn table(peers: &Peers<'_>, single: &Rounds, passed: &Rounds, fought: &Rounds) -> Table {
    let mut table = Table::new([
        "lock",
        "uncontended, us",
        "hand-over p50, us",
        "4 processes, max/min",
        "longest gap, ms",
        "violations a second",
    ]);
    let shown = |figure: f64| match figure.is_nan() {
        true => "-".to_owned(),
        false => format!("{figure:.1}"),
    };
    for name in peers.names().chain(["flock(1)"]) {
        table.row([
            name.to_owned(),
            shown(single.median(&micros(name))),
            shown(passed.median(&micros(name))),
            shown(fought.median(&format!("{name}: max/min"))),
            shown(fought.median(&format!("{name}: longest gap, us")) / 1000.0),
            shown(fought.median(&format!("{name}: violations"))),
        ]);
    }
    table
}
