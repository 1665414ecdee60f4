//! One thread, nobody else: what a pair of acquire and release costs.

use anyhow::Result;
use lock_benches::{Bar, Round, Session, Table};

use crate::keys::{Key, keys, time_each, time_each_async};
use crate::locks::{
    AsyncLocks, KeyMutex, KeyMutexAsync, Keyless, LockMap, Lockable, Locks, Ours, Readers, Seed,
    TunedSeed,
};
use crate::plot::{Plot, Series};

const CALLS: usize = 200_000;
const COUNTS: [usize; 3] = [1, 1_000, 1_000_000];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let keys = keys(COUNTS[2]);
    let rounds = session.section("uncontended", |round| {
        for count in COUNTS {
            blocking(round, &keys[..count]);
            tasks(round, &keys[..count])?;
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let ratio = |ours: &'static str, peer: &'static str| {
        move |round: &Round| round.get(&at(ours, 1_000)) / round.get(&at(peer, 1_000))
    };
    let bars = [
        (
            "blocking-to-parking_lot",
            2.0,
            "ours",
            "parking_lot, no key",
        ),
        ("blocking-to-lockmap", 0.4, "ours", "lockmap"),
        ("blocking-to-lockable", 0.2, "ours", "lockable"),
        ("blocking-to-tuned-seed", 0.6, "ours", "seed, tuned"),
        ("async-to-tokio", 1.0, "ours, async", "tokio, no key"),
    ];
    for (name, limit, ours, peer) in bars {
        session.judge(&rounds, &Bar::at_most(name, limit), ratio(ours, peer));
    }
    let flat = |round: &Round| {
        let each = COUNTS.map(|count| round.get(&at("ours", count)));
        each.iter().fold(0.0, |most, one| one.max(most))
            / each.iter().fold(f64::INFINITY, |least, one| one.min(least))
    };
    session.judge(&rounds, &Bar::at_most("flat-to-a-million-keys", 1.3), flat);
    let mut table = Table::new(["ns per pair", "1 key", "1,000 keys", "1,000,000 keys"]);
    let mut plot = Plot::logarithmic("uncontended", "keys", "ns per pair");
    for who in NAMES {
        let figures = COUNTS.map(|count| rounds.median(&at(who, count)));
        let cells = figures.map(|figure| format!("{figure:.1}"));
        table.row(std::iter::once(who.to_owned()).chain(cells));
        let points = COUNTS.iter().zip(figures);
        plot.add(Series::new(
            who,
            points.map(|(count, ns)| (*count as f64, ns)),
        ));
    }
    session.show(table);
    plot.write(session)
}

const NAMES: [&str; 21] = [
    "ours",
    "ours, async",
    "std, no key",
    "parking_lot, no key",
    "tokio, no key",
    "async-lock, no key",
    "lockmap",
    "lockable",
    "lockable, async",
    "keyed-lock",
    "keyed-lock, async",
    "key-mutex",
    "key-mutex, async",
    "seed",
    "seed, tuned",
    "ours, shared",
    "ours, shared, async",
    "std, no key, shared",
    "parking_lot, no key, shared",
    "tokio, no key, shared",
    "clock",
];

fn at(who: &str, count: usize) -> String {
    format!("{who} @{count}")
}

fn blocking(round: &mut Round, keys: &[Key]) {
    one(round, "ours", keys, &Ours::new());
    one(
        round,
        "std, no key",
        keys,
        &Keyless::<std::sync::Mutex<()>>::default(),
    );
    one(
        round,
        "parking_lot, no key",
        keys,
        &Keyless::<parking_lot::Mutex<()>>::default(),
    );
    one(round, "lockmap", keys, &LockMap::new());
    one(round, "lockable", keys, &Lockable::new());
    one(
        round,
        "keyed-lock",
        keys,
        &keyed_lock::sync::KeyedLock::new(),
    );
    one(round, "key-mutex", keys, &KeyMutex::default());
    one(round, "ours, shared", keys, &Readers(Ours::new()));
    one(
        round,
        "std, no key, shared",
        keys,
        &Readers::<std::sync::RwLock<()>>::default(),
    );
    one(
        round,
        "parking_lot, no key, shared",
        keys,
        &Readers::<parking_lot::RwLock<()>>::default(),
    );
    one(round, "seed", keys, &Seed::default());
    one(round, "seed, tuned", keys, &TunedSeed::default());
    let clock = time_each(keys, CALLS, |_| {
        std::hint::black_box(std::time::Instant::now());
    });
    round.record(at("clock", keys.len()), clock);
}

fn tasks(round: &mut Round, keys: &[Key]) -> Result<()> {
    one_async(round, "ours, async", keys, &Ours::new())?;
    let tokio = Keyless(tokio::sync::Mutex::new(()));
    one_async(round, "tokio, no key", keys, &tokio)?;
    let async_lock = Keyless(async_lock::Mutex::new(()));
    one_async(round, "async-lock, no key", keys, &async_lock)?;
    one_async(round, "ours, shared, async", keys, &Readers(Ours::new()))?;
    let tokio = Readers(tokio::sync::RwLock::new(()));
    one_async(round, "tokio, no key, shared", keys, &tokio)?;
    one_async(round, "lockable, async", keys, &Lockable::new())?;
    let keyed = keyed_lock::r#async::KeyedLock::new();
    one_async(round, "keyed-lock, async", keys, &keyed)?;
    one_async(round, "key-mutex, async", keys, &KeyMutexAsync::default())
}

/// A map that never forgets has to know every key first, or its growth would be measured.
fn one(round: &mut Round, who: &str, keys: &[Key], locks: &impl Locks) {
    if who.starts_with("seed") {
        keys.iter().for_each(|key| locks.with(key, || {}));
    }
    let ns = time_each(keys, CALLS.max(keys.len()), |key| locks.with(key, || {}));
    round.record(at(who, keys.len()), ns);
}

fn one_async<L: AsyncLocks>(round: &mut Round, who: &str, keys: &[Key], locks: &L) -> Result<()> {
    let calls = CALLS.max(keys.len());
    let ns = time_each_async(keys, calls, |key| locks.acquire(key), L::end)?;
    round.record(at(who, keys.len()), ns);
    Ok(())
}
