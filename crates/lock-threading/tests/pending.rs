//! One pending acquire under async tasks, threads and foreign event loops.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lock_core::{
    AcquireOptions, ErrorKind, InspectQuery, Lock, LockBackend, LockKey, Mode, block_on,
};
use lock_threading::ThreadingBackend;

fn lock() -> Lock {
    Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("key").unwrap(),
    )
}

fn waiters(lock: &Lock) -> usize {
    let page = block_on(
        lock.backend()
            .inspect(InspectQuery::key(lock.key().clone())),
    )
    .unwrap();
    page.keys.first().map_or(0, |report| report.waiters.len())
}

#[test]
fn a_callback_tells_a_foreign_loop_when_to_take_the_lock() {
    let lock = lock();
    let holder = lock.acquire().wait().unwrap();
    let (sender, news) = mpsc::channel();
    let mut pending = lock.acquire();
    pending.on_ready(move || sender.send(()).unwrap_or(()));
    news.recv().unwrap();
    assert!(pending.try_take().is_none());
    assert_eq!(waiters(&lock), 1);
    drop(holder);
    news.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(pending.try_take().unwrap().unwrap().is_held());
}

#[test]
fn a_descriptor_becomes_readable_when_the_lock_is_there() {
    let lock = lock();
    let holder = lock.acquire().wait().unwrap();
    let mut pending = lock.acquire();
    let mut readiness = pending.readiness().unwrap();
    readiness.read_exact(&mut [0]).unwrap();
    assert!(pending.try_take().is_none());
    drop(holder);
    readiness.read_exact(&mut [0]).unwrap();
    assert!(pending.try_take().unwrap().is_ok());
}

#[test]
fn a_callback_may_use_the_lock_again() {
    let lock = lock();
    let holder = lock.acquire().wait().unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    let mut pending = lock.acquire();
    pending.on_ready({
        let tried = Arc::clone(&tried);
        move || {
            assert!(lock.try_acquire().wait().unwrap().is_none());
            tried.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(pending.try_take().is_none());
    drop(holder);
    assert_eq!(tried.load(Ordering::Relaxed), 2);
    assert!(pending.try_take().unwrap().is_ok());
}

#[test]
fn threads_and_tasks_stand_in_one_queue() {
    let lock = lock();
    let holder = lock.acquire().wait().unwrap();
    let (sender, order) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let mut threads = Vec::new();
    for turn in 0..6 {
        let (waiting, sender) = (lock.clone(), sender.clone());
        if turn % 2 == 0 {
            threads.push(std::thread::spawn(move || {
                let _guard = waiting.acquire().wait().unwrap();
                sender.send(turn).unwrap();
            }));
        } else {
            runtime.spawn(async move {
                let _guard = waiting.acquire().await.unwrap();
                sender.send(turn).unwrap();
            });
        }
        while waiters(&lock) < turn + 1 {
            std::thread::yield_now();
        }
    }
    drop(holder);
    assert_eq!(order.iter().take(6).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn an_async_wait_limit_works_without_a_runtime() {
    let lock = lock();
    let _holder = lock.acquire().wait().unwrap();
    let options = AcquireOptions::new().wait_limit(Duration::from_millis(20));
    let error = block_on(lock.acquire_with(&options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(waiters(&lock), 0);
}

#[test]
fn max_hold_and_hold_at_least_bound_the_hold() {
    let lock = lock();
    let short = AcquireOptions::new().max_hold(Duration::from_millis(5));
    let wedged = lock.acquire_with(&short).wait().unwrap();
    let next = lock.acquire().wait().unwrap();
    assert!(!wedged.is_held() && next.is_held());
    drop((wedged, next));
    let long = AcquireOptions::new().hold_at_least(Duration::from_millis(50));
    let started = std::time::Instant::now();
    drop(lock.acquire_with(&long).wait().unwrap());
    assert!(
        lock.try_acquire().wait().unwrap().is_none(),
        "kept although the guard is gone"
    );
    drop(lock.acquire().wait().unwrap());
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn detach_and_attach_move_a_lock_between_guards() {
    let lock = lock();
    let guard = lock.acquire().wait().unwrap();
    let token = guard.fencing_token();
    let detached = block_on(guard.detach()).unwrap();
    assert!(lock.try_acquire().wait().unwrap().is_none());
    let sent: lock_core::Detached = detached.to_string().parse().unwrap();
    let guard = block_on(lock.attach(sent)).unwrap();
    assert_eq!(
        (guard.fencing_token(), guard.mode()),
        (token, Mode::Exclusive)
    );
    drop(guard);
    let late = block_on(lock.attach(detached)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Lost);
}

#[test]
fn a_closed_backend_wakes_its_waiters_with_the_reason() {
    let backend = Arc::new(ThreadingBackend::new());
    let lock = Lock::new(Arc::clone(&backend) as _, LockKey::new("key").unwrap());
    let holder = lock.acquire().wait().unwrap();
    let mut pending = lock.acquire();
    assert!(pending.try_take().is_none());
    block_on(backend.close()).unwrap();
    assert_eq!(
        pending.try_take().unwrap().unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(lock.acquire().wait().unwrap_err().kind(), ErrorKind::Closed);
    assert!(holder.is_held());
}

#[test]
fn a_loss_that_was_told_is_not_taken_back_by_the_release() {
    let options = AcquireOptions::new().max_hold(Duration::from_millis(1));
    for _ in 0..200 {
        let guard = lock().acquire_with(&options).wait().unwrap();
        while guard.is_held() {
            std::hint::spin_loop();
        }
        // The timer signals the loss first and ends the attempt next; this comes in between.
        let released = guard.release_blocking().unwrap();
        assert_eq!(released, lock_core::Released::AlreadyLost);
    }
}

#[test]
fn sets_over_two_backends_of_one_kind_are_taken_in_one_order() {
    let lock =
        |backend: ThreadingBackend| Lock::new(Arc::new(backend), LockKey::new("key").unwrap());
    let (here, there) = (lock(ThreadingBackend::new()), lock(ThreadingBackend::new()));
    // Fencing numbers of one backend are far above those of the other, and so tell them apart.
    for _ in 0..100 {
        drop(here.acquire().wait().unwrap());
    }
    let from_here = |locks: &[Lock]| {
        let set = block_on(lock_core::acquire_all(locks, &AcquireOptions::new())).unwrap();
        let bases = set
            .guards()
            .iter()
            .map(|guard| guard.fencing_token().unwrap().number().base());
        bases.map(|base| base > 50).collect::<Vec<_>>()
    };
    let one_way = from_here(&[here.clone(), there.clone()]);
    assert_eq!(one_way, from_here(&[there, here]));
    assert_eq!(one_way.len(), 2);
}
