//! Four processes: each with a name of its own, and all with the same.

use std::time::Duration;

use anyhow::Result;
use lock_benches::{Bar, Session};

use crate::party::{Party, counts};

const PROCESSES: usize = 4;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    apart(session)?;
    together(session)
}

fn apart(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let rounds = session.section("4 processes, different names", |round| {
        let mut parties = start(directory.path(), |number| format!("name {number}"))?;
        for what in ["bare", "ours"] {
            let time = Duration::from_millis(700);
            let pairs: u64 = counts(&mut parties, what, time)?.iter().sum();
            round.record(
                format!("{what}, pairs/s"),
                pairs as f64 / time.as_secs_f64(),
            );
        }
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        let bar = Bar::at_least("sqlite-4-processes-apart-vs-bare-statements", 0.7);
        session.judge(&rounds, &bar, |round| {
            round.get("ours, pairs/s") / round.get("bare, pairs/s")
        });
    }
    Ok(())
}

fn together(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut fewest = u64::MAX;
    let rounds = session.section("4 processes, one name", |round| {
        let mut parties = start(directory.path(), |_| "contended".to_owned())?;
        let time = Duration::from_secs(6);
        let grants = counts(&mut parties, "ours", time)?;
        let all: u64 = grants.iter().sum();
        fewest = fewest.min(all);
        let most = grants.iter().max().copied().unwrap_or_default() as f64;
        let least = grants.iter().min().copied().unwrap_or_default() as f64;
        round.record("grants/s", all as f64 / time.as_secs_f64());
        round.record("max/min", most / least);
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        println!("at least {fewest} grants in each round");
        let bar = Bar::at_most("sqlite-4-processes-one-name-max-over-min", 1.05);
        session.judge(&rounds, &bar, |round| round.get("max/min"));
        let bar = Bar::at_least("sqlite-4-processes-one-name-grants-counted", 10_000.0);
        session.judge(&rounds, &bar, |_| fewest as f64);
    }
    Ok(())
}

fn start(directory: &std::path::Path, name: impl Fn(usize) -> String) -> Result<Vec<Party>> {
    (0..PROCESSES)
        .map(|number| Party::start(directory, &name(number)))
        .collect()
}
