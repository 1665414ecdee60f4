//! Tasks and threads on one key: throughput, and whether everybody gets a share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::Result;
use lock_benches::{Bar, Round, Session, Table};

use crate::keys::{Key, key};
use crate::locks::{AsyncLocks, Keyless, LockMap, Lockable, Locks, Ours, TunedSeed};

const TASK_COUNTS: [usize; 3] = [2, 16, 64];
const PAIRS_PER_RUN: usize = 64_000;
const THREAD_RUN: Duration = Duration::from_millis(250);

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    tasks(session)?;
    threads(session)
}

fn tasks(session: &mut Session) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    let rounds = session.section("tasks-on-one-key", |round| {
        for count in TASK_COUNTS {
            task_run(round, &runtime, "ours", count, Ours::new())?;
            let tokio = Keyless(tokio::sync::Mutex::new(()));
            task_run(round, &runtime, "tokio, no key", count, tokio)?;
            let async_lock = Keyless(async_lock::Mutex::new(()));
            task_run(round, &runtime, "async-lock, no key", count, async_lock)?;
            task_run(round, &runtime, "lockable", count, Lockable::new())?;
            let keyed = keyed_lock::r#async::KeyedLock::new();
            task_run(round, &runtime, "keyed-lock", count, keyed)?;
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let throughput = |round: &Round| round.get("ours, 64") / round.get("tokio, no key, 64");
    session.judge(
        &rounds,
        &Bar::at_least("64-tasks-to-tokio", 0.9),
        throughput,
    );
    session.judge(&rounds, &Bar::at_least("64-tasks-spread", 0.95), |round| {
        round.get("ours, 64, spread")
    });
    let mut table = Table::new(["tasks on one key", "2", "16", "64", "spread of 64"]);
    for who in [
        "ours",
        "tokio, no key",
        "async-lock, no key",
        "lockable",
        "keyed-lock",
    ] {
        let each = TASK_COUNTS.map(|count| rounds.median(&format!("{who}, {count}")));
        let cells = each.map(|figure| format!("{figure:.2}"));
        let spread = format!("{:.3}", rounds.median(&format!("{who}, 64, spread")));
        table.row(std::iter::once(who.to_owned()).chain(cells).chain([spread]));
    }
    session.show(format_args!(
        "Million pairs per second; the spread is the first task's finish by the last's.\n\n{table}"
    ));
    Ok(())
}

/// All tasks queue behind a holder, then take turns.
fn task_run<L: AsyncLocks>(
    round: &mut Round,
    runtime: &tokio::runtime::Runtime,
    who: &str,
    count: usize,
    locks: L,
) -> Result<()> {
    let (locks, key) = (Arc::new(locks), key(1));
    let each = PAIRS_PER_RUN / count;
    let (began, queued) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let holder = runtime.spawn({
        let (locks, key) = (Arc::clone(&locks), key.clone());
        let (began, queued) = (Arc::clone(&began), Arc::clone(&queued));
        async move {
            let guard = locks.acquire(&key).await;
            began.store(true, Ordering::SeqCst);
            while queued.load(Ordering::SeqCst) < count {
                std::thread::yield_now();
            }
            L::end(guard);
            Instant::now()
        }
    });
    while !began.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (locks, key, queued) = (Arc::clone(&locks), key.clone(), Arc::clone(&queued));
            runtime.spawn(async move {
                queued.fetch_add(1, Ordering::SeqCst);
                for _ in 0..each {
                    L::end(locks.acquire(&key).await);
                }
                Instant::now()
            })
        })
        .collect();
    let began = runtime.block_on(holder)?;
    let mut finishes = Vec::new();
    for task in tasks {
        finishes.push((runtime.block_on(task)? - began).as_secs_f64());
    }
    let last = finishes.iter().copied().fold(0.0, f64::max);
    let first = finishes.iter().copied().fold(f64::INFINITY, f64::min);
    round.record(format!("{who}, {count}"), PAIRS_PER_RUN as f64 / last / 1e6);
    round.record(format!("{who}, {count}, spread"), first / last);
    Ok(())
}

fn threads(session: &mut Session) -> Result<()> {
    let rounds = session.section("threads-on-one-key", |round| {
        for (count, pauses) in [(2, 0), (16, 20)] {
            let std = Keyless::<std::sync::Mutex<()>>::default();
            thread_run(round, "std, no key", count, pauses, std);
            thread_run(round, "ours", count, pauses, Ours::new());
            let parking_lot = Keyless::<parking_lot::Mutex<()>>::default();
            thread_run(round, "parking_lot, no key", count, pauses, parking_lot);
            thread_run(round, "lockmap", count, pauses, LockMap::new());
            thread_run(round, "seed, tuned", count, pauses, TunedSeed::default());
        }
        thread_run(round, "lockable", 2, 0, Lockable::new());
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let to_std = |count: usize| {
        move |round: &Round| {
            round.get(&format!("ours, {count}")) / round.get(&format!("std, no key, {count}"))
        }
    };
    session.judge(&rounds, &Bar::at_least("2-threads-to-std", 0.8), to_std(2));
    session.judge(
        &rounds,
        &Bar::at_least("16-threads-to-std", 0.9),
        to_std(16),
    );
    // A thousandth of a fair share would be starving.
    session.judge(
        &rounds,
        &Bar::at_least("16-threads-none-starved", 0.001),
        |round| round.get("ours, 16, least share"),
    );
    let mut table = Table::new([
        "threads on one key",
        "2, empty section",
        "16, 20 pauses",
        "least share",
    ]);
    for who in [
        "ours",
        "std, no key",
        "parking_lot, no key",
        "lockmap",
        "seed, tuned",
        "lockable",
    ] {
        let each = [2, 16].map(|count| rounds.median(&format!("{who}, {count}")));
        let cells = each.map(|figure| format!("{figure:.2}"));
        let share = format!("{:.2}", rounds.median(&format!("{who}, 16, least share")));
        table.row(std::iter::once(who.to_owned()).chain(cells).chain([share]));
    }
    session.show(format_args!(
        "Million pairs per second; the share is the unluckiest thread's by a fair one's.\n\n{table}"
    ));
    Ok(())
}

fn thread_run(round: &mut Round, who: &str, count: usize, pauses: u32, locks: impl Locks) {
    let (locks, key) = (Arc::new(locks), key(1));
    let (start, stop) = (
        Arc::new(Barrier::new(count + 1)),
        Arc::new(AtomicBool::new(false)),
    );
    let work = |_| {
        let (locks, key): (_, Key) = (Arc::clone(&locks), key.clone());
        let (start, stop) = (Arc::clone(&start), Arc::clone(&stop));
        std::thread::spawn(move || {
            start.wait();
            let mut pairs = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                locks.with(&key, || (0..pauses).for_each(|_| std::hint::spin_loop()));
                pairs += 1;
            }
            pairs
        })
    };
    let threads: Vec<_> = (0..count).map(work).collect();
    start.wait();
    let began = Instant::now();
    std::thread::sleep(THREAD_RUN);
    stop.store(true, Ordering::Relaxed);
    let pairs: Vec<u64> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or(0))
        .collect();
    let (total, seconds) = (
        pairs.iter().sum::<u64>() as f64,
        began.elapsed().as_secs_f64(),
    );
    round.record(format!("{who}, {count}"), total / seconds / 1e6);
    let least = pairs.iter().min().copied().unwrap_or(0) as f64;
    round.record(
        format!("{who}, {count}, least share"),
        least * count as f64 / total,
    );
}
