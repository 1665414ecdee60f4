//! Locks by key of any type.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lock_core::{ErrorKind, FencingToken, Mode, block_on};
use lock_threading::{Fairness, KeyOptions, KeyedLocks};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn keys_are_exact_however_few_the_slots() {
    let locks = KeyedLocks::<u64>::new().with_slots(1);
    let guards: Vec<_> = (0..1_000)
        .map(|key| locks.try_acquire(&key).unwrap())
        .collect();
    assert!((0..1_000).all(|key| locks.try_acquire(&key).is_none()));
    assert_eq!(locks.keys_in_use(), 1_000);
    drop(guards);
    assert_eq!(locks.keys_in_use(), 0);
    assert!((0..1_000).all(|key| locks.try_acquire(&key).is_some()));
}

#[test]
fn borrowed_forms_of_a_key_are_the_key() {
    let locks = KeyedLocks::<String>::new();
    let guard = locks.acquire("orders/42").wait();
    assert!(locks.try_acquire(&"orders/42".to_owned()).is_none());
    assert!(locks.try_acquire("orders/43").is_some());
    drop(guard);
    assert!(locks.try_acquire("orders/42").is_some());
}

#[test]
fn fencing_tokens_rise_over_every_way_to_hold() {
    let locks = KeyedLocks::<u64>::new().with_slots(1);
    let mut last: HashMap<u64, FencingToken> = HashMap::new();
    let mut rises = |key: u64, token: Option<FencingToken>| {
        let token = token.unwrap();
        assert!(last.insert(key, token).is_none_or(|last| last < token));
    };
    for round in 0..200 {
        let one = locks.acquire(&1).wait();
        rises(1, one.fencing_token());
        // The slot has a holder of another key now, and a room behind it.
        let two = locks.acquire(&2).wait();
        rises(2, two.fencing_token());
        let mut next = pin!(locks.acquire(&1));
        assert!(poll(next.as_mut()).is_pending());
        let shared = KeyOptions::new().mode(Mode::Shared);
        if round % 3 == 0 {
            drop(locks.acquire_with(&3, shared).wait().unwrap());
        }
        drop(one);
        let Poll::Ready(handed) = poll(next.as_mut()) else {
            panic!("not handed over");
        };
        rises(1, handed.fencing_token());
    }
}

#[test]
fn tasks_are_served_in_the_order_they_came() {
    let locks = KeyedLocks::<u64>::new();
    let guard = locks.acquire(&1).wait();
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(locks.acquire(&1))).collect();
    for each in &mut waiting {
        assert!(poll(each.as_mut()).is_pending());
    }
    drop(guard);
    for (at, each) in waiting.iter_mut().enumerate() {
        assert!(locks.try_acquire(&1).is_none(), "{at} was overtaken");
        assert!(poll(each.as_mut()).is_ready(), "{at} was not next");
    }
}

#[test]
fn a_priority_goes_first() {
    let locks = KeyedLocks::<u64>::new();
    let guard = locks.acquire(&1).wait();
    let (low, high) = (KeyOptions::new(), KeyOptions::new().priority(5));
    let mut low = pin!(locks.acquire_with(&1, low));
    let mut high = pin!(locks.acquire_with(&1, high));
    assert!(poll(low.as_mut()).is_pending() && poll(high.as_mut()).is_pending());
    drop(guard);
    assert!(poll(low.as_mut()).is_pending());
    assert!(poll(high.as_mut()).is_ready());
    assert!(poll(low.as_mut()).is_ready());
}

#[test]
fn modes_share_exclude_and_conflict() {
    let locks = KeyedLocks::<u64>::new();
    let shared = KeyOptions::new().mode(Mode::Shared);
    let permit = KeyOptions::new().mode(Mode::permit(2).unwrap());
    let readers = [(); 3].map(|()| locks.acquire_with(&1, shared).wait().unwrap());
    assert!(readers[0].fencing_token().is_none());
    assert!(locks.try_acquire(&1).is_none());
    let refused = locks.acquire_with(&1, permit).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ModeConflict);
    drop(readers);
    let _first = locks.acquire_with(&1, permit).wait().unwrap();
    let _second = locks.acquire_with(&1, permit).wait().unwrap();
    assert!(poll(pin!(locks.acquire_with(&1, permit))).is_pending());
}

#[test]
fn whoever_barges_is_let_past_by_all_who_wait() {
    let locks = KeyedLocks::<u64>::new().with_task_fairness(Fairness::Barging);
    let of = |mode, priority| KeyOptions::new().mode(mode).priority(priority);
    let permit = Mode::permit(2).unwrap();
    for (waiting, newcomer) in [
        (of(Mode::Exclusive, 0), of(Mode::Exclusive, -1)),
        (of(Mode::Exclusive, 0), of(Mode::Shared, -1)),
        (of(Mode::Exclusive, 1), of(Mode::Shared, 0)),
    ] {
        let guard = locks.acquire(&1).wait();
        let mut waiting = pin!(locks.acquire_with(&1, waiting));
        assert!(poll(waiting.as_mut()).is_pending());
        drop(guard);
        // The waiter was called, and is on its way.
        assert!(poll(pin!(locks.acquire_with(&1, newcomer))).is_pending());
        assert!(poll(waiting.as_mut()).is_ready());
    }
    let guard = locks.acquire(&1).wait();
    let mut waiting = pin!(locks.acquire_with(&1, of(permit, 0)));
    assert!(poll(waiting.as_mut()).is_pending());
    drop(guard);
    let shared = poll(pin!(locks.acquire_with(&1, of(Mode::Shared, 0))));
    let Poll::Ready(Err(refused)) = shared else {
        panic!("a mode that can never take turns with the waiter's");
    };
    assert_eq!(refused.kind(), ErrorKind::ModeConflict);
    assert!(poll(waiting.as_mut()).is_ready());
}

#[test]
fn waiters_that_are_dropped_leave_nothing() {
    let locks = KeyedLocks::<u64>::new();
    for granted_before in [false, true] {
        for key in 0..10_000 {
            let guard = locks.acquire(&key).wait();
            let mut waiting = Box::pin(locks.acquire(&key));
            assert!(poll(waiting.as_mut()).is_pending());
            if granted_before {
                drop(guard);
                drop(waiting);
            } else {
                drop(waiting);
                drop(guard);
            }
        }
        assert_eq!(locks.keys_in_use(), 0);
    }
}

#[test]
fn timeouts_and_panics_leave_nothing() {
    let locks = KeyedLocks::<u64>::new();
    for key in 0..500 {
        let guard = locks.acquire(&key).wait();
        let soon = Duration::from_micros(1);
        assert!(locks.acquire(&key).wait_for(soon).is_none());
        drop(guard);
    }
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for key in 0..500 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = locks.acquire(&key).wait();
            panic!("in the section");
        }));
        assert!(panicked.is_err());
    }
    std::panic::set_hook(silent);
    assert_eq!(locks.keys_in_use(), 0);
}

#[derive(PartialEq, Eq, Hash)]
struct Fussy(u64);

/// One slot, which all of them share.
static FUSSY: LazyLock<KeyedLocks<Fussy>> = LazyLock::new(|| KeyedLocks::new().with_slots(1));

impl Clone for Fussy {
    fn clone(&self) -> Self {
        assert!(self.0 != 0, "cannot be cloned");
        if self.0 == 1 {
            drop(FUSSY.acquire(&Self(2)).wait());
        }
        Self(self.0)
    }
}

#[test]
fn a_key_may_panic_or_use_the_locks_while_it_is_cloned() {
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for beside in [None, Some(Fussy(3))] {
        let _beside = beside.as_ref().map(|key| FUSSY.acquire(key).wait());
        let panicked = catch_unwind(|| drop(FUSSY.acquire(&Fussy(0)).wait()));
        assert!(panicked.is_err());
        drop(FUSSY.acquire(&Fussy(1)).wait());
    }
    std::panic::set_hook(silent);
    assert_eq!(FUSSY.keys_in_use(), 0);
}

/// Of two, the comparison that is this far ahead panics.
static AHEAD: AtomicUsize = AtomicUsize::new(usize::MAX);

#[derive(Clone)]
struct Brittle(u64);

impl PartialEq for Brittle {
    fn eq(&self, other: &Self) -> bool {
        assert!(AHEAD.fetch_sub(1, Ordering::Relaxed) != 0, "cannot compare");
        self.0 == other.0
    }
}

impl Eq for Brittle {}

impl std::hash::Hash for Brittle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn a_key_that_panics_when_compared_ends_no_hold() {
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for ahead in 0..8 {
        let locks = KeyedLocks::<Brittle>::new()
            .with_slots(1)
            .with_task_fairness(Fairness::Barging);
        let key = Brittle(1);
        let first = locks.acquire(&key).wait();
        let mut called = pin!(locks.acquire(&key));
        assert!(poll(called.as_mut()).is_pending());
        drop(first);
        // In the slot, while the waiter that lets it barge is in the room.
        let barged = locks.acquire(&key).wait();
        let mut other = Box::pin(locks.acquire(&key));
        AHEAD.store(ahead, Ordering::Relaxed);
        let waits = catch_unwind(AssertUnwindSafe(|| poll(other.as_mut()).is_pending()));
        AHEAD.store(usize::MAX, Ordering::Relaxed);
        assert!(waits.unwrap_or(true), "two hold, {ahead}");
        drop(other);
        assert!(locks.try_acquire(&key).is_none());
        assert!(poll(called.as_mut()).is_pending());
        drop(barged);
        assert!(poll(called.as_mut()).is_ready());
        assert_eq!(locks.keys_in_use(), 0);
    }
    std::panic::set_hook(silent);
}

#[test]
fn a_wait_is_bounded_and_a_free_key_is_taken_in_time() {
    let locks = Arc::new(KeyedLocks::<u64>::new());
    let guard = locks.acquire(&1).wait();
    assert!(
        locks
            .acquire(&1)
            .wait_for(Duration::from_millis(20))
            .is_none()
    );
    let there = Arc::clone(&locks);
    let waiter = std::thread::spawn(move || {
        let limit = Duration::from_secs(20);
        there.acquire(&1).wait_for(limit).is_some()
    });
    while locks.acquire(&1).wait_for(Duration::ZERO).is_some() {}
    drop(guard);
    assert!(waiter.join().unwrap());
}

#[test]
fn an_owned_guard_outlives_its_handle() {
    let locks = Arc::new(KeyedLocks::<String>::new());
    let guard = block_on(locks.acquire_owned("key"));
    assert!(guard.fencing_token().is_some());
    assert!(locks.try_acquire_owned("key").is_none());
    let weak = Arc::downgrade(&locks);
    drop(locks);
    let there = std::thread::spawn(move || drop(guard));
    there.join().unwrap();
    assert!(weak.upgrade().is_none());
}

/// The last user of the key runs code that uses the locks.
struct Chatty {
    key: u64,
    locks: Arc<Mutex<Option<Arc<KeyedLocks<Self>>>>>,
}

impl Clone for Chatty {
    fn clone(&self) -> Self {
        Self {
            key: self.key,
            locks: Arc::clone(&self.locks),
        }
    }
}

impl PartialEq for Chatty {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Chatty {}

impl std::hash::Hash for Chatty {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

static DROPS: AtomicUsize = AtomicUsize::new(0);

impl Drop for Chatty {
    fn drop(&mut self) {
        let locks = self.locks.lock().unwrap().clone();
        if let Some(locks) = locks {
            DROPS.fetch_add(1, Ordering::Relaxed);
            let _ = locks.keys_in_use();
        }
    }
}

#[test]
fn keys_are_dropped_with_nothing_locked() {
    let locks = Arc::new(KeyedLocks::<Chatty>::new().with_slots(1));
    let place = Arc::new(Mutex::new(None));
    let key = |key| Chatty {
        key,
        locks: Arc::clone(&place),
    };
    let (one, two) = (key(1), key(2));
    *place.lock().unwrap() = Some(Arc::clone(&locks));
    for _ in 0..3 {
        let first = locks.acquire(&one).wait();
        assert!(locks.try_acquire(&one).is_none());
        let second = locks.acquire(&two).wait();
        let mut waiting = Box::pin(locks.acquire(&one));
        assert!(poll(waiting.as_mut()).is_pending());
        drop(first);
        drop(waiting);
        drop(second);
    }
    assert!(DROPS.load(Ordering::Relaxed) > 0);
    *place.lock().unwrap() = None;
}

/// Adds without atomicity, so that two who are inside lose an update.
fn add_unprotected(counter: &AtomicU64) {
    let seen = counter.load(Ordering::Relaxed);
    std::hint::spin_loop();
    counter.store(seen + 1, Ordering::Relaxed);
}

#[test]
fn threads_and_tasks_exclude_each_other_on_few_keys() {
    for (threads, tasks) in [
        (Fairness::Barging, Fairness::FirstCome),
        (Fairness::FirstCome, Fairness::Barging),
    ] {
        exclude_each_other(threads, tasks);
    }
}

fn exclude_each_other(threads: Fairness, tasks: Fairness) {
    const KEYS: usize = 3;
    const ROUNDS: u64 = 20_000;
    let locks = KeyedLocks::<usize>::new()
        .with_slots(2)
        .with_thread_fairness(threads)
        .with_task_fairness(tasks);
    let locks = Arc::new(locks);
    let counters: Arc<[AtomicU64; KEYS]> = Arc::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let in_tasks: Vec<_> = (0..4)
        .map(|task| {
            let (locks, counters) = (Arc::clone(&locks), Arc::clone(&counters));
            runtime.spawn(async move {
                for round in 0..ROUNDS as usize {
                    let key = (round + task) % KEYS;
                    let _guard = locks.acquire(&key).await;
                    add_unprotected(&counters[key]);
                }
            })
        })
        .collect();
    let in_threads: Vec<_> = (0..2)
        .map(|thread| {
            let (locks, counters) = (Arc::clone(&locks), Arc::clone(&counters));
            std::thread::spawn(move || {
                for round in 0..ROUNDS as usize {
                    let key = (round + thread) % KEYS;
                    // Others wait, give up, or never look at what they were handed.
                    if round % 5 == 0 {
                        let _ = poll(pin!(locks.acquire(&key)));
                    }
                    let _guard = locks.acquire(&key).wait();
                    add_unprotected(&counters[key]);
                }
            })
        })
        .collect();
    for thread in in_threads {
        thread.join().unwrap();
    }
    for task in in_tasks {
        runtime.block_on(task).unwrap();
    }
    let total: u64 = counters
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum();
    assert_eq!(total, 6 * ROUNDS, "an update was lost");
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_task_that_never_waits_lets_others_run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let locks = Arc::new(KeyedLocks::<u64>::new());
        let done = Arc::new(AtomicUsize::new(0));
        let (there, stop) = (Arc::clone(&locks), Arc::clone(&done));
        let busy = tokio::spawn(async move {
            while stop.load(Ordering::Relaxed) == 0 {
                drop(there.acquire(&1).await);
            }
        });
        tokio::task::yield_now().await;
        done.store(1, Ordering::Relaxed);
        busy.await.unwrap();
    });
}
