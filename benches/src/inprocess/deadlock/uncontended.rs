//! One acquire and release that nobody else wants.

use anyhow::Result;
use lock_benches::{Bar, Round, Session, nanoseconds_per_call};
use lock_manager::{AcquireOptions, Lock, LockManager, Mode, OwnerId};

use super::Both;

/// Alternations within one round: a machine that changes speed meets both sides.
const TURNS: usize = 20;
const CALLS: u32 = 50_000;

pub(super) fn measure(session: &mut Session) -> Result<()> {
    let rounds = session.section("deadlock detection: uncontended pair", |round| {
        let both = Both::new()?;
        let options = AcquireOptions::new().owner(OwnerId::new());
        let stated = |lock: Lock| lock.with_options(options.clone());
        compare(
            round,
            "blocking, thread as owner",
            &both,
            |lock| lock,
            blocking,
        )?;
        compare(round, "blocking, stated owner", &both, stated, blocking)?;
        compare(round, "async, task as owner", &both, |lock| lock, in_a_task)?;
        let shared = AcquireOptions::new().mode(Mode::Shared);
        let shared = |lock: Lock| lock.with_options(shared.clone());
        compare(round, "shared, thread as owner", &both, shared, blocking)
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    for what in [
        "blocking, thread as owner",
        "blocking, stated owner",
        "async, task as owner",
    ] {
        let bar = Bar::at_most(format!("detection on, added ns per pair, {what}"), 10.0);
        session.judge(&rounds, &bar, |round| added(round, what));
    }
    Ok(())
}

fn added(round: &Round, what: &str) -> f64 {
    round.get(&format!("{what}: on")) - round.get(&format!("{what}: off"))
}

/// Records the median time of a pair on each side, in ns.
fn compare(
    round: &mut Round,
    what: &str,
    both: &Both,
    with: impl Fn(Lock) -> Lock,
    pairs: impl Fn(&Lock) -> f64,
) -> Result<()> {
    let lock = |manager: &LockManager| Ok::<_, anyhow::Error>(with(manager.lock("orders/42")?));
    let (off, on) = (lock(&both.off)?, lock(&both.on)?);
    let (mut times_off, mut times_on) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        times_off.push(pairs(&off));
        times_on.push(pairs(&on));
    }
    round.record(format!("{what}: off"), median(times_off));
    round.record(format!("{what}: on"), median(times_on));
    Ok(())
}

fn blocking(lock: &Lock) -> f64 {
    nanoseconds_per_call(CALLS, || drop(lock.acquire().wait()))
}

fn in_a_task(lock: &Lock) -> f64 {
    let lock = lock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let pairs = async move {
        let start = std::time::Instant::now();
        for _ in 0..CALLS {
            drop(lock.acquire().await);
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let time = runtime.map(|runtime| runtime.block_on(async { tokio::spawn(pairs).await }));
    time.map_or(f64::NAN, |time| time.unwrap_or(f64::NAN))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
