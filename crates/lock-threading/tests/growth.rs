//! Keys that are held and waited for while the table gets more slots, which it does once keys have met
//! often enough.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use lock_threading::{Fairness, KeyGuard, KeyOptions, KeyedLocks};

/// So many that hundreds of them meet another one in the slots that there are at first.
const CROWD: std::ops::Range<u64> = 1_000..3_000;

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn hold(locks: &KeyedLocks<u64>, keys: std::ops::Range<u64>) -> Vec<KeyGuard<'_, u64>> {
    keys.map(|key| locks.try_acquire(&key).unwrap()).collect()
}

fn all_are_held(locks: &KeyedLocks<u64>, mut keys: std::ops::Range<u64>) -> bool {
    keys.all(|key| locks.try_acquire(&key).is_none())
}

#[test]
fn holders_and_waiters_stay_what_they_are() {
    let locks = KeyedLocks::<u64>::new();
    let early = hold(&locks, 0..100);
    let mut waiting = pin!(locks.acquire(&0));
    assert!(poll(waiting.as_mut()).is_pending());
    let readers = KeyOptions::new().mode(lock_core::Mode::Shared);
    let reader = locks.acquire_with(&500, readers).wait().unwrap();
    let crowd = hold(&locks, CROWD);
    assert!(all_are_held(&locks, 0..100) && all_are_held(&locks, CROWD));
    assert_eq!(locks.keys_in_use(), 100 + 1 + crowd.len());
    assert!(locks.try_acquire(&500).is_none(), "it is read");
    let other_reader = locks.acquire_with(&500, readers).wait();
    drop((reader, other_reader));
    assert!(locks.try_acquire(&500).is_some());
    assert!(poll(waiting.as_mut()).is_pending());
    drop(early);
    assert!(poll(waiting.as_mut()).is_ready());
    drop(hold(&locks, 0..100));
    assert!(all_are_held(&locks, CROWD));
    drop(crowd);
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn fencing_tokens_rise() {
    let locks = KeyedLocks::<u64>::new();
    let tokens = || {
        let token = |key| locks.acquire(&key).wait().fencing_token().unwrap();
        (0..CROWD.end).map(token).collect::<Vec<_>>()
    };
    let mut last = tokens();
    for _ in 0..2 {
        drop(hold(&locks, CROWD));
        let now = tokens();
        assert!(last.iter().zip(&now).all(|(last, now)| last < now));
        last = now;
    }
}

#[test]
fn a_holder_that_barged_moves_in_with_the_waiter_that_let_it() {
    let locks = KeyedLocks::<u64>::new().with_task_fairness(Fairness::Barging);
    let first = locks.acquire(&0).wait();
    let mut called = pin!(locks.acquire(&0));
    assert!(poll(called.as_mut()).is_pending());
    drop(first);
    let barged = locks.try_acquire(&0).unwrap();
    let crowd = hold(&locks, CROWD);
    assert!(locks.try_acquire(&0).is_none());
    assert_eq!(locks.keys_in_use(), crowd.len() + 1);
    assert!(poll(called.as_mut()).is_pending());
    drop(barged);
    assert!(poll(called.as_mut()).is_ready());
    drop(crowd);
    assert_eq!(locks.keys_in_use(), 0);
}
