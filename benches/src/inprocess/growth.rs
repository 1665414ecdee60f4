//! Many waiters on one key: queueing, leaving in any order, and taking turns.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anyhow::Result;
use lock_benches::{Bar, Round, Session, Table};

use crate::keys::key;
use crate::locks::{AsyncLocks, Keyless, Ours};
use crate::plot::{Plot, Series};

const COUNTS: [usize; 3] = [1_000, 10_000, 100_000];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let rounds = session.section("waiters", |round| {
        for count in COUNTS {
            // As many waiters in all runs, so that each is measured equally well.
            let runs = COUNTS[2] / count;
            let each = |seconds: f64| seconds * 1e9 / runs as f64 / count as f64;
            let ours: f64 = (0..runs).map(|_| run(&Ours::new(), count)).sum();
            round.record(at(OURS, count), each(ours));
            let floor = || Keyless(tokio::sync::Mutex::new(()));
            let floor: f64 = (0..runs).map(|_| run(&floor(), count)).sum();
            round.record(at(FLOOR, count), each(floor));
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    // The floor takes the same time for each waiter, but for the caches that so many no longer fit.
    let growth = |round: &Round| {
        let by_log_n = |count: usize| {
            round.get(&at(OURS, count)) / round.get(&at(FLOOR, count)) / (count as f64).log2()
        };
        by_log_n(COUNTS[2]) / by_log_n(COUNTS[0])
    };
    session.judge(&rounds, &Bar::at_most("waiters-to-n-log-n", 1.0), growth);
    let mut table = Table::new([
        "waiters on one key",
        "ns per waiter",
        "ns per waiter and log2 n",
        "tokio, no key",
    ]);
    let mut plot = Plot::logarithmic("waiters", "waiters", "ns per waiter");
    let median = |who| COUNTS.map(|count| (count as f64, rounds.median(&at(who, count))));
    let (ours, floor) = (median(OURS), median(FLOOR));
    for ((count, ns), (_, floor)) in ours.into_iter().zip(floor) {
        table.row([
            format!("{count:.0}"),
            format!("{ns:.0}"),
            format!("{:.1}", ns / count.log2()),
            format!("{floor:.0}"),
        ]);
    }
    plot.add(Series::new("ours", ours));
    plot.add(Series::new(FLOOR, floor));
    session.show(table);
    plot.write(session)
}

const OURS: &str = "ours";
/// A list that knows neither priorities nor modes: whoever waits is a node of it.
const FLOOR: &str = "tokio, no key";

fn at(who: &str, count: usize) -> String {
    format!("{who}, {count}")
}

/// Queues `count` waiters, drops every other one in random order, and lets the rest take turns.
fn run<L: AsyncLocks>(locks: &L, count: usize) -> f64 {
    let key = key(1);
    let mut context = Context::from_waker(Waker::noop());
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = 1_u64;
    for at in (1..count).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        order.swap(at, (random >> 33) as usize % (at + 1));
    }
    // Dropped where they are, so that it is not measured how their boxes are freed: nor is how they
    // are made.
    let mut waiting: Vec<_> = (0..count)
        .map(|_| Box::pin(Some(locks.acquire(&key))))
        .collect();
    let guard = pin!(locks.acquire(&key)).poll(&mut context);
    assert!(guard.is_ready());
    let began = Instant::now();
    assert_eq!(poll_all(&mut waiting), count);
    for at in order.iter().take(count / 2) {
        waiting[*at].set(None);
    }
    drop(guard);
    assert_eq!(poll_all(&mut waiting), 0);
    began.elapsed().as_secs_f64()
}

/// Polls those that are left, and says how many of them still wait.
fn poll_all<F: Future>(waiting: &mut [Pin<Box<Option<F>>>]) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    let left = waiting
        .iter_mut()
        .filter_map(|each| each.as_mut().as_pin_mut());
    let polled = left.map(|each| each.poll(&mut context));
    polled.filter(Poll::is_pending).count()
}
