//! What is left of waiters that were dropped, timed out or panicked, and whether anybody was ever
//! let in twice.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::Result;
use lock_benches::{Bar, Session};

use crate::keys::{Key, key, keys};
use crate::locks::{KeyMutexAsync, Lockable, Ours};

const TIMES: usize = 10_000;
const MIXED: usize = 100_000_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    leftovers(session)?;
    violations(session)
}

fn leftovers(session: &mut Session) -> Result<()> {
    let keys = keys(TIMES);
    let rounds = session.section("leftovers", |round| {
        let ours = Ours::new();
        for key in &keys {
            let guard = ours.acquire(key).wait();
            drop_when_granted(ours.acquire(key), || drop(guard));
        }
        round.record("ours, granted and dropped", ours.keys_in_use() as f64);
        timeouts(&ours, &keys);
        round.record("ours, timed out", ours.keys_in_use() as f64);
        panics(&ours, &keys);
        round.record("ours, panicked", ours.keys_in_use() as f64);
        let lockable = Lockable::new();
        let key_mutex = KeyMutexAsync::default();
        for key in &keys {
            let guard = lockable.blocking_lock(key.clone());
            drop_when_granted(lockable.async_lock(key.clone()), || drop(guard));
            let Poll::Ready(guard) = poll_once(pin!(key_mutex.0.lock(key.clone()))) else {
                continue;
            };
            drop_when_granted(key_mutex.0.lock(key.clone()), || drop(guard));
        }
        round.record(
            "lockable, granted and dropped",
            lockable.num_locked() as f64,
        );
        round.record("key-mutex, granted and dropped", key_mutex.0.len() as f64);
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    for what in ["granted and dropped", "timed out", "panicked"] {
        let name = format!("left-when-{}", what.replace(' ', "-"));
        let figure = format!("ours, {what}");
        session.judge(&rounds, &Bar::at_most(name, 0.0), |round| {
            round.get(&figure)
        });
    }
    Ok(())
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Queues, is handed the lock, and is dropped without having been polled again.
fn drop_when_granted(waiting: impl Future, release: impl FnOnce()) {
    let mut waiting = Box::pin(waiting);
    let _ = poll_once(waiting.as_mut());
    release();
}

/// All wait at the same time, so that the clock's granularity is paid once.
fn timeouts(locks: &Ours, keys: &[Key]) {
    let guards: Vec<_> = keys.iter().map(|key| locks.acquire(key).wait()).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    else {
        return;
    };
    runtime.block_on(async {
        let soon = Duration::from_millis(1);
        let mut waiting: Vec<_> = keys
            .iter()
            .map(|key| Box::pin(tokio::time::timeout(soon, locks.acquire(key))))
            .collect();
        for each in &mut waiting {
            assert!(poll_once(each.as_mut()).is_pending());
        }
        for each in waiting {
            assert!(each.await.is_err());
        }
    });
    drop(guards);
}

fn panics(locks: &Ours, keys: &[Key]) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for key in keys {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = locks.acquire(key).wait();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
    }
    std::panic::set_hook(hook);
}

/// A hundred million operations of two threads and their tasks: held, waited for, given up.
fn violations(session: &mut Session) -> Result<()> {
    if !session.wants("mixed") {
        return Ok(());
    }
    let once = Session::section(session, "mixed", |round| {
        // The rounds share the operations.
        let (done, wrong, left) = mixed(MIXED / 9);
        round.record("operations", done as f64);
        round.record("violations", wrong as f64 + left as f64);
        Ok(())
    })?;
    if let Some(rounds) = once {
        let total: f64 = rounds.iter().map(|round| round.get("operations")).sum();
        let wrong: f64 = rounds.iter().map(|round| round.get("violations")).sum();
        println!("{total} operations in all rounds, {wrong} violations or entries left");
        session.judge(
            &rounds,
            &Bar::at_most("violations-in-mixed-use", 0.0),
            |_| wrong,
        );
        session.judge(&rounds, &Bar::at_least("mixed-operations", 9.9e7), |_| {
            total
        });
    }
    Ok(())
}

fn mixed(operations: usize) -> (usize, u64, usize) {
    const KEYS: usize = 64;
    let locks = Arc::new(Ours::new().with_slots(32));
    let keys: Arc<Vec<Key>> = Arc::new((0..KEYS).map(key).collect());
    let counters: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let work = |seed: u64| {
        let (locks, keys, counters) =
            (Arc::clone(&locks), Arc::clone(&keys), Arc::clone(&counters));
        std::thread::spawn(move || {
            let mut random = seed;
            let (mut done, mut held) = (0, 0_u64);
            while done < operations / 2 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (random >> 33) as usize % KEYS;
                let guard = match (random >> 50) % 8 {
                    0 => locks.try_acquire(&keys[at]),
                    1 => match poll_once(pin!(locks.acquire(&keys[at]))) {
                        Poll::Ready(guard) => Some(guard),
                        Poll::Pending => None,
                    },
                    _ => Some(locks.acquire(&keys[at]).wait()),
                };
                if guard.is_some() {
                    let seen = counters[at].load(Ordering::Relaxed);
                    counters[at].store(seen + 1, Ordering::Relaxed);
                    held += 1;
                }
                done += 1;
            }
            (done, held)
        })
    };
    let both = [work(1), work(2)];
    let (mut done, mut held) = (0, 0);
    for thread in both {
        let (its_done, its_held) = thread.join().unwrap_or((0, u64::MAX / 4));
        done += its_done;
        held += its_held;
    }
    let counted: u64 = counters
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum();
    (done, held.abs_diff(counted), locks.keys_in_use())
}
