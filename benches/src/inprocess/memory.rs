//! What keys leave behind, and what they take while they are held; each in a process of its own.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lock_benches::{Bar, Role, Session, Table};

use crate::keys::keys;
use crate::locks::{LockMap, Lockable, Locks, Ours, Seed};

const KEYS: usize = 1_000_000;
const NAMES: [&str; 4] = ["ours", "lockmap", "lockable", "seed"];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let rounds = session.section("memory", |round| {
        for who in NAMES {
            let (left, held) = ask(who)?;
            round.record(format!("{who}, kB left"), left / 1024.0);
            round.record(format!("{who}, bytes per held key"), held / KEYS as f64);
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    session.judge(&rounds, &Bar::at_most("kilobytes-left", 64.0), |round| {
        round.get("ours, kB left")
    });
    session.judge(
        &rounds,
        &Bar::at_most("bytes-per-held-key", 110.0),
        |round| round.get("ours, bytes per held key"),
    );
    let mut table = Table::new(["1,000,000 keys", "kB left after", "bytes per held key"]);
    for who in NAMES {
        let left = format!("{:.0}", rounds.median(&format!("{who}, kB left")));
        let held = format!(
            "{:.0}",
            rounds.median(&format!("{who}, bytes per held key"))
        );
        table.row([who.to_owned(), left, held]);
    }
    session.show(table);
    Ok(())
}

fn ask(who: &str) -> Result<(f64, f64)> {
    let output = Role::new("memory").command(&[who])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (left, held) = text
        .trim()
        .split_once(' ')
        .with_context(|| format!("the process for `{who}` said `{text}`"))?;
    Ok((left.parse()?, held.parse()?))
}

/// The part of the other process: locks every key once, then holds all of them.
pub(crate) fn play(name: &str, arguments: &[String]) -> Result<ExitCode> {
    let (left, held) = match (name, arguments.first().map(String::as_str)) {
        ("memory", Some("ours")) => {
            let locks = Ours::new();
            weigh(&locks, |locks, keys, weigh| {
                let mut guards = Vec::with_capacity(KEYS);
                guards.extend(keys.iter().map(|key| locks.acquire(key).wait()));
                weigh();
            })
        }
        ("memory", Some("lockmap")) => weigh(&LockMap::new(), |locks, keys, weigh| {
            let mut guards = Vec::with_capacity(KEYS);
            guards.extend(keys.iter().map(|key| locks.entry_by_ref(key.as_str())));
            weigh();
        }),
        ("memory", Some("lockable")) => weigh(&Lockable::new(), |locks, keys, weigh| {
            let mut guards = Vec::with_capacity(KEYS);
            guards.extend(keys.iter().map(|key| locks.blocking_lock(key.clone())));
            weigh();
        }),
        // It never forgets, so what is left is what it holds.
        ("memory", Some("seed")) => weigh(&Seed::default(), |_, _, weigh| weigh()),
        _ => bail!("no role `{name}` with {arguments:?}"),
    };
    println!("{left} {held}");
    Ok(ExitCode::SUCCESS)
}

fn weigh<L: Locks>(
    locks: &L,
    hold: impl FnOnce(&L, &[crate::keys::Key], &mut dyn FnMut()),
) -> (usize, usize) {
    let keys = keys(KEYS);
    // The fixed part is there from the first use.
    locks.with(&keys[0], || {});
    let before = resident();
    keys.iter().for_each(|key| locks.with(key, || {}));
    let left = resident().saturating_sub(before);
    let mut held = 0;
    hold(locks, &keys, &mut || {
        held = resident().saturating_sub(before)
    });
    (left, held)
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.and_then(|word| word.parse().ok()).unwrap_or(0) * 1024
}
