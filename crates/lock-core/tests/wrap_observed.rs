//! The reporting wrapper: every beginning has one end, and nothing an observer does matters.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::{Memory, eventually, key, poll_once};
use lock_core::wrap::{Counters, CountersSnapshot, Deadlock, Event, EventKind, Observed};
use lock_core::{
    AcquireOptions, ErrorKind, Lock, LockBackend, LossReason, Mode, OwnerId, Released, Wait,
    block_on,
};

fn counted(inner: Arc<dyn LockBackend>) -> (Arc<Observed>, Arc<Counters>) {
    let counters = Arc::new(Counters::new());
    let observed = Observed::new(inner, Arc::clone(&counters) as _);
    (Arc::new(observed), counters)
}

/// Checks each count; those not named must be zero.
macro_rules! assert_counts {
    ($counters:expr, $($name:ident: $count:expr),* $(,)?) => {{
        let mut expected = CountersSnapshot::default();
        $(expected.$name = $count;)*
        assert_eq!($counters.snapshot(), expected);
    }};
}

#[test]
fn counters_match_a_scripted_run() {
    let memory = Memory::losable();
    let (backend, counters) = counted(Arc::clone(&memory) as _);
    let lock = Lock::new(Arc::clone(&backend) as _, key("k"));

    let held = lock.acquire().wait().unwrap();
    assert_counts!(counters, attempts: 1, acquired: 1, holders: 1);

    assert!(lock.try_acquire().wait().unwrap().is_none());
    assert_counts!(counters, attempts: 2, acquired: 1, holders: 1, contended: 1);

    let mut cancelled = lock.acquire();
    assert!(poll_once(&mut cancelled).is_pending());
    assert_counts!(
        counters, attempts: 3, acquired: 1, holders: 1, contended: 1, waiters: 1,
    );
    drop(cancelled);

    let timed_out = lock.try_acquire_for(Duration::from_millis(1)).wait();
    assert!(timed_out.unwrap().is_none());
    assert_counts!(
        counters, attempts: 4, acquired: 1, holders: 1, contended: 1, abandoned: 2,
    );

    let conflicting = AcquireOptions::new().mode(Mode::permit(2).unwrap());
    let shared = AcquireOptions::new().mode(Mode::Shared);
    let mut next = lock.acquire_with(&shared);
    assert!(poll_once(&mut next).is_pending());
    let refused = lock.acquire_with(&conflicting).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ModeConflict);
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
    let Poll::Ready(Ok(next)) = poll_once(&mut next) else {
        panic!("not handed over");
    };
    assert_counts!(
        counters, attempts: 6, acquired: 2, holders: 1, contended: 1, abandoned: 2, failed: 1,
        released: 1,
    );
    drop(next);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.acquire().wait().unwrap();
        panic!("in the section");
    }));
    assert!(panicked.is_err());
    memory.panic_next();
    let broken = catch_unwind(AssertUnwindSafe(|| lock.acquire().wait()));
    assert!(broken.is_err());
    assert_counts!(
        counters, attempts: 8, acquired: 3, contended: 1, abandoned: 2, failed: 2, released: 3,
    );

    let lost = lock.acquire().wait().unwrap();
    assert_eq!(block_on(backend.break_lock(&key("k"), None)).unwrap(), 1);
    eventually("the loss", || counters.snapshot().lost == 1);
    assert!(!lost.is_held());
    assert_eq!(lost.release_blocking().unwrap(), Released::AlreadyLost);
    let lost = lock.acquire().wait().unwrap();
    assert_eq!(block_on(backend.break_lock(&key("k"), None)).unwrap(), 1);
    drop(lost);
    eventually("the loss", || counters.snapshot().lost == 2);

    let detached = block_on(lock.acquire().wait().unwrap().detach()).unwrap();
    let attached = block_on(lock.attach(detached)).unwrap();
    drop(attached);
    assert_counts!(
        counters, attempts: 11, acquired: 6, contended: 1, abandoned: 2, failed: 2, released: 4,
        lost: 2, detached: 1, attached: 1,
    );
    assert!(memory.is_idle());
}

#[test]
fn counters_add_up_after_a_crowd() {
    let memory = Memory::new();
    let (backend, counters) = counted(Arc::clone(&memory) as _);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let lock = Lock::new(Arc::clone(&backend) as _, key(format!("k{}", thread % 2)));
            scope.spawn(move || {
                for round in 0..500 {
                    match round % 3 {
                        0 => drop(lock.acquire().wait().unwrap()),
                        1 => drop(lock.try_acquire().wait().unwrap()),
                        _ => {
                            let mut given_up = lock.acquire();
                            drop(poll_once(&mut given_up));
                        }
                    }
                }
            });
        }
    });
    let counts = counters.snapshot();
    assert_eq!(counts.attempts, 8 * 500);
    assert_eq!(
        counts.attempts,
        counts.acquired + counts.contended + counts.abandoned
    );
    assert_eq!(counts.acquired, counts.released);
    assert_eq!((counts.holders, counts.waiters), (0, 0));
    assert!(memory.is_idle());
}

#[test]
fn a_refused_deadlock_is_one_failure() {
    let (backend, counters) = counted(Arc::new(Deadlock::new(Memory::new())));
    let lock = Lock::new(backend, key("k"));
    let owner = AcquireOptions::new().owner(OwnerId::new());
    let guard = lock.acquire_with(&owner).wait().unwrap();
    let refused = lock.acquire_with(&owner).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadlock);
    drop(guard);
    assert_counts!(counters, attempts: 2, acquired: 1, failed: 1, released: 1);
}

#[test]
fn the_step_of_a_refused_acquire_is_abandoned_further_in() {
    let (backend, counters) = counted(Memory::new());
    let lock = Lock::new(Arc::new(Deadlock::new(backend)), key("k"));
    let owner = AcquireOptions::new().owner(OwnerId::new());
    let guard = lock.acquire_with(&owner).wait().unwrap();
    assert!(lock.acquire_with(&owner).wait().is_err());
    drop(guard);
    assert_counts!(counters, attempts: 2, acquired: 1, abandoned: 1, released: 1);
}

#[test]
fn a_panicking_observer_stops_nothing() {
    let memory = Memory::losable();
    let observer = |event: &Event<'_>| panic!("observing {event:?}");
    let backend = Arc::new(Observed::new(Arc::clone(&memory) as _, Arc::new(observer)));
    let lock = Lock::new(backend, key("k"));
    let guard = lock.acquire().wait().unwrap();
    let mut waits = lock.acquire();
    assert!(poll_once(&mut waits).is_pending());
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    let Poll::Ready(Ok(guard)) = poll_once(&mut waits) else {
        panic!("not handed over");
    };
    // Also while the section itself unwinds.
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("in the section");
    }));
    assert!(panicked.is_err());
    assert!(memory.is_idle());
}

#[test]
fn a_slow_observer_does_not_hold_up_the_hand_over() {
    let (slow, go_on) = (Arc::new(std::sync::Barrier::new(2)), key("k"));
    let observer = {
        let slow = Arc::clone(&slow);
        move |event: &Event<'_>| {
            if matches!(event.kind, EventKind::Released { .. }) && event.mode == Mode::Shared {
                slow.wait();
            }
        }
    };
    let backend = Arc::new(Observed::new(Memory::new(), Arc::new(observer)));
    let lock = Lock::new(backend, go_on);
    let shared = AcquireOptions::new().mode(Mode::Shared);
    let first = lock.acquire_with(&shared).wait().unwrap();
    let releasing = std::thread::spawn(move || drop(first));
    // Granted although the observer of the release has not returned, and cannot before this.
    let granted = lock.try_acquire_for(Duration::from_secs(10)).wait();
    let granted = granted.unwrap().is_some();
    slow.wait();
    assert!(granted, "held up");
    releasing.join().unwrap();
}

#[test]
fn an_observer_may_use_the_lock_it_observes() {
    let lock: Arc<Mutex<Option<Lock>>> = Arc::default();
    let observer = {
        let lock = Arc::clone(&lock);
        move |event: &Event<'_>| {
            let again = match event.kind {
                EventKind::Released { .. } => lock.lock().unwrap().take(),
                _ => None,
            };
            if let Some(again) = again {
                drop(again.acquire().wait().unwrap());
            }
        }
    };
    let backend = Arc::new(Observed::new(Memory::new(), Arc::new(observer)));
    *lock.lock().unwrap() = Some(Lock::new(Arc::clone(&backend) as _, key("k")));
    drop(Lock::new(backend, key("k")).acquire().wait().unwrap());
    assert!(lock.lock().unwrap().is_none());
}

#[test]
fn events_carry_key_mode_attempt_and_times() {
    let seen: Arc<Mutex<Vec<(String, EventKind)>>> = Arc::default();
    let observer = {
        let seen = Arc::clone(&seen);
        move |event: &Event<'_>| {
            let what = format!("{} {} {}", event.key, event.mode, event.attempt);
            seen.lock().unwrap().push((what, event.kind));
        }
    };
    let backend = Arc::new(Observed::new(Memory::losable(), Arc::new(observer)));
    let options = AcquireOptions::new().mode(Mode::Shared);
    let request = options.to_request(Wait::Forever).unwrap();
    let lock_core::Step::Ready(Ok(Some(grant))) = backend.acquire(&key("k"), &request) else {
        panic!("not granted");
    };
    grant.validity.as_ref().unwrap().lose(LossReason::Expired);
    backend.abandon(&key("k"), request.attempt);
    backend.abandon(&key("k"), request.attempt);
    eventually("three events", || seen.lock().unwrap().len() >= 3);
    let seen = seen.lock().unwrap();
    let what = format!("{} shared {}", key("k"), request.attempt);
    assert!(seen.iter().all(|(seen, _)| *seen == what));
    let [attempted, acquired, lost] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(attempted.1, EventKind::Attempted);
    assert_eq!(acquired.1, EventKind::Acquired { waited: None });
    assert!(matches!(
        lost.1,
        EventKind::Lost {
            reason: LossReason::Expired,
            ..
        }
    ));
}
