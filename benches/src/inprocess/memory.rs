//! What keys leave behind, and what they take while they are held; each in a process of its own.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lock_benches::{Bar, Role, Session, Table};

use crate::allocations::bytes;
use crate::keys::keys;
use crate::locks::{LockMap, Lockable, Locks, Ours, Seed};

const KEYS: usize = 1_000_000;
const SOME: usize = 1_000;
const NAMES: [&str; 4] = ["ours", "lockmap", "lockable", "seed"];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let rounds = session.section("memory", |round| {
        for who in NAMES {
            let [fixed, left, held] = ask(who)?;
            round.record(format!("{who}, kB fixed"), fixed / 1024.0);
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
    let mut table = Table::new([
        "1,000,000 keys",
        "kB fixed",
        "kB left",
        "bytes per held key",
    ]);
    for who in NAMES {
        let columns = ["kB fixed", "kB left", "bytes per held key"];
        let figures = columns.map(|column| rounds.median(&format!("{who}, {column}")));
        let cells = figures.map(|figure| format!("{figure:.0}"));
        table.row(std::iter::once(who.to_owned()).chain(cells));
    }
    session.show(table);
    Ok(())
}

fn ask(who: &str) -> Result<[f64; 3]> {
    let output = Role::new("memory").command(&[who])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let figures = <[f64; 3]>::try_from(figures).ok();
    figures.with_context(|| format!("the process for `{who}` said `{text}`"))
}

/// The part of the other process: locks every key once, then holds all of them.
pub(crate) fn play(name: &str, arguments: &[String]) -> Result<ExitCode> {
    let [fixed, left, held] = match (name, arguments.first().map(String::as_str)) {
        ("memory", Some("ours")) => {
            let locks = Ours::new();
            weigh(&locks, |locks, keys, weigh| {
                let mut guards = Vec::with_capacity(keys.len());
                guards.extend(keys.iter().map(|key| locks.acquire(key).wait()));
                weigh();
            })
        }
        ("memory", Some("lockmap")) => weigh(&LockMap::new(), |locks, keys, weigh| {
            let mut guards = Vec::with_capacity(keys.len());
            guards.extend(keys.iter().map(|key| locks.entry_by_ref(key.as_str())));
            weigh();
        }),
        ("memory", Some("lockable")) => weigh(&Lockable::new(), |locks, keys, weigh| {
            let mut guards = Vec::with_capacity(keys.len());
            guards.extend(keys.iter().map(|key| locks.blocking_lock(key.clone())));
            weigh();
        }),
        // It never forgets, so what is left is what it holds.
        ("memory", Some("seed")) => weigh(&Seed::default(), |_, _, weigh| weigh()),
        _ => bail!("no role `{name}` with {arguments:?}"),
    };
    println!("{fixed} {left} {held}");
    Ok(ExitCode::SUCCESS)
}

/// What is there as soon as some keys are held at a time, what all keys leave behind in addition, and
/// how much more memory the process takes while all are held. What was given back is not left, even if
/// the system's allocator keeps it.
fn weigh<L: Locks>(
    locks: &L,
    hold: impl Fn(&L, &[crate::keys::Key], &mut dyn FnMut()),
) -> [usize; 3] {
    let keys = keys(KEYS);
    let first = bytes();
    hold(locks, &keys[..SOME], &mut || {});
    let (fixed, before) = (bytes() - first, resident());
    keys.iter().for_each(|key| locks.with(key, || {}));
    let mut held = 0;
    hold(locks, &keys, &mut || {
        held = resident().saturating_sub(before);
    });
    let left = bytes() - first - fixed;
    [fixed.max(0) as usize, left.max(0) as usize, held]
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.and_then(|word| word.parse().ok()).unwrap_or(0) * 1024
}
