//! What the contract says of asking again, of wakers, and of what bounds a hold.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lock_core::{
    AcquireOptions, Change, ErrorKind, Grant, InspectQuery, KeyReport, Lock, LockBackend, LockKey,
    Mode, OwnerToken, ProcessNonce, Released, Request, Step, Wait, acquire_all, block_on, runtime,
};
use lock_threading::ThreadingBackend;

fn key() -> LockKey {
    LockKey::new("key").unwrap()
}

fn lock() -> Lock {
    Lock::new(Arc::new(ThreadingBackend::new()), key())
}

fn report(backend: &dyn LockBackend) -> KeyReport {
    let page = block_on(backend.inspect(InspectQuery::key(key()))).unwrap();
    let report = page.keys.into_iter().next();
    report.unwrap_or_else(|| KeyReport::idle(key()))
}

#[test]
fn asking_again_while_held_takes_no_second_place() {
    let backend = ThreadingBackend::new();
    for mode in [Mode::Exclusive, Mode::Shared, Mode::permit(3).unwrap()] {
        let request = Request::new(OwnerToken::mint(), mode, Wait::Forever);
        for _ in 0..2 {
            let Step::Ready(Ok(Some(grant))) = backend.acquire(&key(), &request) else {
                panic!("not granted");
            };
            assert_eq!(grant.attempt, request.attempt);
        }
        let holders = report(&backend).holders;
        assert_eq!(holders.len(), 1, "{mode}");
        assert_eq!(
            (holders[0].attempt, holders[0].mode),
            (request.attempt, mode)
        );
        backend.abandon(&key(), request.attempt);
        assert_eq!(backend.keys_in_use(), 0, "{mode}");
    }
}

#[test]
fn asking_again_while_waiting_takes_no_second_place() {
    let backend = ThreadingBackend::new();
    let lock = Lock::new(Arc::new(backend.clone()), key());
    let held = lock.acquire().wait().unwrap();
    let request = Request::new(OwnerToken::mint(), Mode::Exclusive, Wait::Forever);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        let Step::Waiting(mut step) = backend.acquire(&key(), &request) else {
            panic!("answered at once");
        };
        assert!(step.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(report(&backend).waiters.len(), 1);
    backend.abandon(&key(), request.attempt);
    drop(held);
    assert_eq!(backend.keys_in_use(), 0);
}

#[test]
fn the_token_of_another_process_is_nobody_here() {
    let backend = ThreadingBackend::new();
    let other = ProcessNonce::from_bits(!ProcessNonce::current().to_bits());
    // One is alone in its slot, the other in the room.
    for mode in [Mode::Exclusive, Mode::permit(3).unwrap()] {
        let request = Request::new(OwnerToken::mint(), mode, Wait::Forever);
        let Step::Ready(Ok(Some(grant))) = backend.acquire(&key(), &request) else {
            panic!("not granted");
        };
        let foreign = Grant {
            attempt: OwnerToken::from_parts(other, grant.attempt.counter()),
            ..grant.clone()
        };
        let Step::Ready(released) = backend.release(&key(), &foreign) else {
            panic!("not answered");
        };
        assert_eq!(released.unwrap(), Released::AlreadyLost, "{mode}");
        backend.abandon(&key(), foreign.attempt);
        let Step::Ready(altered) = backend.alter(&key(), &foreign, Change::Detach) else {
            panic!("not answered");
        };
        assert_eq!(altered.unwrap_err().kind(), ErrorKind::Lost, "{mode}");
        let holders = report(&backend).holders;
        assert_eq!(holders.len(), 1, "{mode}");
        assert_eq!(holders[0].attempt, grant.attempt);
        backend.abandon(&key(), grant.attempt);
        assert_eq!(backend.keys_in_use(), 0, "{mode}");
    }
}

#[test]
fn an_attempt_that_was_let_in_and_abandoned_is_not_granted() {
    let backend = ThreadingBackend::new();
    let lock = Lock::new(Arc::new(backend.clone()), key());
    let held = lock.acquire().wait().unwrap();
    let request = Request::new(OwnerToken::mint(), Mode::Exclusive, Wait::Forever);
    let mut context = Context::from_waker(Waker::noop());
    let Step::Waiting(mut step) = backend.acquire(&key(), &request) else {
        panic!("answered at once");
    };
    assert!(step.as_mut().poll(&mut context).is_pending());
    drop(held);
    backend.abandon(&key(), request.attempt);
    assert!(step.as_mut().poll(&mut context).is_pending());
    assert_eq!(backend.keys_in_use(), 0);
}

#[test]
fn a_refused_downgrade_leaves_the_hold_as_it_was() {
    let lock = lock();
    let mut guard = lock.acquire().wait().unwrap();
    let token = guard.fencing_token();
    let permit = AcquireOptions::new().mode(Mode::permit(2).unwrap());
    let mut waiting = lock.acquire_with(&permit);
    assert!(waiting.try_take().is_none());
    let refused = block_on(guard.downgrade()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ModeConflict);
    assert_eq!(guard.mode(), Mode::Exclusive);
    assert_eq!(guard.fencing_token(), token);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a defect of the executor");
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_waiter_asleep() {
    let lock = lock();
    let guard = lock.acquire().wait().unwrap();
    let shared = AcquireOptions::new().mode(Mode::Shared);
    let mut first = pin!(lock.acquire_with(&shared));
    let broken = Waker::from(Arc::new(Panics));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&broken))
            .is_pending()
    );
    let second = Arc::new(AtomicBool::new(false));
    let woken = Arc::clone(&second);
    let mut other = lock.acquire_with(&shared);
    other.on_ready(move || woken.store(true, Ordering::SeqCst));
    second.store(false, Ordering::SeqCst);
    assert!(other.try_take().is_none());
    drop(guard);
    assert!(second.load(Ordering::SeqCst));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        first.as_mut().poll(&mut context),
        Poll::Ready(Ok(_))
    ));
}

#[test]
fn waiting_on_the_io_thread_is_refused() {
    let lock = lock();
    let guard = lock.acquire().wait().unwrap();
    let (sender, outcome) = std::sync::mpsc::channel();
    let there = lock.clone();
    runtime::handle().spawn(async move {
        let waited = there.acquire().wait().map(drop);
        let tried = there.try_acquire_for(Duration::from_secs(60)).wait();
        sender.send((waited, tried.map(drop))).unwrap();
    });
    let (waited, tried) = outcome.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(tried.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(report(&**lock.backend()).waiters.is_empty());
    drop(guard);
}

#[test]
fn a_lock_that_is_attached_and_released_is_not_lost_by_max_hold() {
    let limit = Duration::from_millis(100);
    let lock = lock().with_options(AcquireOptions::new().max_hold(limit));
    let guard = lock.acquire().wait().unwrap();
    let lost = guard.lost();
    let attached = block_on(lock.attach(block_on(guard.detach()).unwrap())).unwrap();
    assert_eq!(attached.release_blocking().unwrap(), Released::Released);
    assert_eq!(lost.wait_for(limit * 3), None);
}

#[test]
fn max_hold_bounds_an_attached_lock() {
    let limit = Duration::from_millis(100);
    let lock = lock().with_options(AcquireOptions::new().max_hold(limit));
    let guard = lock.acquire().wait().unwrap();
    let attached = block_on(lock.attach(block_on(guard.detach()).unwrap())).unwrap();
    assert!(attached.lost().wait_for(Duration::from_secs(20)).is_some());
    assert_eq!(attached.release_blocking().unwrap(), Released::AlreadyLost);
}

#[test]
fn hold_at_least_outlives_a_detach() {
    let least = Duration::from_secs(600);
    let lock = lock().with_options(AcquireOptions::new().hold_at_least(least));
    let guard = lock.acquire().wait().unwrap();
    let attached = block_on(lock.attach(block_on(guard.detach()).unwrap())).unwrap();
    drop(attached);
    assert!(lock.try_acquire().wait().unwrap().is_none());
}

#[test]
fn a_lock_that_is_lost_leaves_nothing_when_it_is_leaked() {
    let lock = lock().with_options(AcquireOptions::new().max_hold(Duration::from_millis(1)));
    let guard = lock.acquire().wait().unwrap();
    assert!(guard.lost().wait_for(Duration::from_secs(20)).is_some());
    guard.leak();
    assert!(
        lock.try_acquire_for(Duration::from_secs(20))
            .wait()
            .unwrap()
            .is_some()
    );
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    let options = AcquireOptions::new()
        .hold_at_least(Duration::from_secs(2))
        .max_hold(Duration::from_secs(1));
    let refused = lock().acquire_with(&options).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn endless_limits_are_no_overflow() {
    let options = AcquireOptions::new()
        .wait_limit(Duration::MAX)
        .max_hold(Duration::MAX)
        .hold_at_least(Duration::ZERO);
    let lock = lock().with_options(options);
    let guard = lock.acquire().wait().unwrap();
    let mut waiting = lock.acquire();
    assert!(waiting.try_take().is_none());
    drop(guard);
    assert!(waiting.wait().unwrap().is_held());
}

#[test]
fn duplicates_count_once_also_beside_another_backend() {
    let (one, other) = (lock(), lock());
    let set = [one.clone(), other.clone(), one, other];
    let options = AcquireOptions::new().wait_limit(Duration::ZERO);
    let guards = block_on(acquire_all(&set, &options)).unwrap();
    assert_eq!(guards.guards().len(), 2);
}
