//! Two threads on different keys: what they cost each other.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use anyhow::Result;
use lock_benches::{Bar, Round, Session, Table};

use crate::keys::{Key, keys};
use crate::locks::{KeyMutex, LockMap, Lockable, Locks, Ours, TunedSeed};

const CALLS: usize = 300_000;
/// Before it is measured: tables get their size by then.
const WARM_UP: usize = 50_000;
const NAMES: [&str; 6] = [
    "ours",
    "lockmap",
    "lockable",
    "keyed-lock",
    "key-mutex",
    "seed, tuned",
];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let keys = Arc::new(keys(1_000));
    let rounds = session.section("threads-apart", |round| {
        for sharing in [Sharing::Apart, Sharing::Same] {
            record(round, "ours", sharing, &keys, Ours::new());
            record(round, "lockmap", sharing, &keys, LockMap::new());
            record(round, "lockable", sharing, &keys, Lockable::new());
            let keyed = keyed_lock::sync::KeyedLock::new();
            record(round, "keyed-lock", sharing, &keys, keyed);
            record(round, "key-mutex", sharing, &keys, KeyMutex::default());
            record(round, "seed, tuned", sharing, &keys, TunedSeed::default());
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    for (sharing, what) in [
        (Sharing::Apart, "two-threads-apart"),
        (Sharing::Same, "two-threads-same-keys"),
    ] {
        for (peer, limit) in [("lockmap", 5.0), ("lockable", 15.0)] {
            let bar = Bar::at_least(format!("{what}-to-{peer}"), limit);
            session.judge(&rounds, &bar, |round| {
                round.get(&at("ours", sharing)) / round.get(&at(peer, sharing))
            });
        }
    }
    let mut table = Table::new([
        "two threads, million pairs per second",
        "500 keys each",
        "the same 1,000",
    ]);
    for who in NAMES {
        let each = [Sharing::Apart, Sharing::Same].map(|sharing| rounds.median(&at(who, sharing)));
        let cells = each.map(|figure| format!("{figure:.1}"));
        table.row(std::iter::once(who.to_owned()).chain(cells));
    }
    session.show(table);
    Ok(())
}

/// Which keys two threads use.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    /// Each has its half.
    Apart,
    /// Both go round all keys, half a round apart.
    Same,
}

fn at(who: &str, sharing: Sharing) -> String {
    format!("{who}, {sharing:?}")
}

/// Millions of pairs per second of two threads together.
fn record(round: &mut Round, who: &str, sharing: Sharing, keys: &Arc<Vec<Key>>, locks: impl Locks) {
    let (locks, start) = (Arc::new(locks), Arc::new(Barrier::new(2)));
    let work = |offset: usize| {
        let (keys, locks, start) = (Arc::clone(keys), Arc::clone(&locks), Arc::clone(&start));
        std::thread::spawn(move || {
            let mine = match sharing {
                Sharing::Apart => &keys[offset..offset + keys.len() / 2],
                Sharing::Same => &keys[..],
            };
            let skip = offset % mine.len();
            let run = |calls| {
                start.wait();
                let began = Instant::now();
                for key in mine.iter().cycle().skip(skip).take(calls) {
                    locks.with(key, || {});
                }
                began.elapsed()
            };
            run(WARM_UP);
            run(CALLS)
        })
    };
    let both = [work(0), work(keys.len() / 2)];
    let times = both.map(|thread| thread.join().unwrap_or_default());
    let longest = times.iter().max().copied().unwrap_or_default();
    round.record(
        at(who, sharing),
        2.0 * CALLS as f64 / longest.as_secs_f64() / 1e6,
    );
}
