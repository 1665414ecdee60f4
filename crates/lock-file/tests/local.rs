//! One process: order, cancellation, sharing, closing, and two backends of one directory.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lock_core::{
    AcquireOptions, ErrorKind, Fence, InspectQuery, LockBackend, LockKey, Mode, OwnerId, Released,
    Request, Step, Wait, block_on,
};
use support::{directory, eventually, holders, lock, open, options, waiters};

#[test]
fn waiters_of_one_process_come_by_priority_and_then_in_order() {
    let dir = directory();
    let (backend, outside) = (open(dir.path()), open(dir.path()));
    // Also while another process is in the way, which a second backend is like.
    for blocker in [&backend, &outside] {
        let held = lock(blocker, "x").acquire().wait().unwrap();
        let (sender, order) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for (n, priority) in [(1, 0), (2, 0), (3, 5), (4, 5), (5, -1)] {
            let acquire =
                lock(&backend, "x").acquire_with(&AcquireOptions::new().priority(priority));
            let sender = sender.clone();
            threads.push(std::thread::spawn(move || {
                let guard = acquire.wait().unwrap();
                sender.send(n).unwrap();
                guard.release_blocking().unwrap();
            }));
            let count = threads.len();
            eventually("queued", || waiters(&backend, "x").len() == count);
        }
        held.release_blocking().unwrap();
        drop(sender);
        assert_eq!(order.iter().collect::<Vec<_>>(), [3, 4, 1, 2, 5]);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn backends_of_one_directory_exclude_each_other_and_pass_the_lock_around() {
    let dir = directory();
    let counter = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let backends = [open(dir.path()), open(dir.path())];
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (backend, counter) = (backends[n % 2].clone(), Arc::clone(&counter));
            std::thread::spawn(move || {
                for _ in 0..100 {
                    let guard = lock(&backend, "x").acquire().wait().unwrap();
                    assert_eq!(counter.0.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    counter.1.fetch_add(1, Ordering::SeqCst);
                    counter.0.fetch_sub(1, Ordering::SeqCst);
                    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(counter.1.load(Ordering::SeqCst), 800);
    assert!(holders(&backends[0], "x").is_empty() && waiters(&backends[1], "x").is_empty());
}

#[test]
fn a_process_that_acquires_in_a_loop_lets_its_neighbour_in() {
    let dir = directory();
    let (busy, patient) = (open(dir.path()), open(dir.path()));
    let stop = Arc::new(AtomicU32::new(0));
    // Two threads, so that the busy side always has a waiter to pass the lock on to.
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (busy, stop) = (busy.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while stop.load(Ordering::Relaxed) == 0 {
                    drop(lock(&busy, "x").acquire().wait().unwrap());
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let limit = Duration::from_secs(5);
        let guard = lock(&patient, "x").try_acquire_for(limit).wait().unwrap();
        assert!(guard.is_some(), "starved for {limit:?}");
    }
    stop.store(1, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_cancelled_wait_leaves_nothing_and_the_next_one_competes_on() {
    let dir = directory();
    let (backend, outside) = (open(dir.path()), open(dir.path()));
    let held = lock(&outside, "x").acquire().wait().unwrap();
    let mut first = lock(&backend, "x").acquire();
    assert!(first.try_take().is_none());
    let mut second = lock(&backend, "x").acquire();
    assert!(second.try_take().is_none());
    drop(first);
    assert_eq!(waiters(&backend, "x").len(), 1);
    drop(second);
    eventually("nobody waits", || waiters(&outside, "x").is_empty());
    assert_eq!(
        lock(&outside, "x").try_acquire().wait().unwrap().map(drop),
        None
    );
    held.release_blocking().unwrap();
    let guard = lock(&outside, "x").try_acquire().wait().unwrap();
    assert!(guard.is_some(), "no turn was left behind");
    let timed = lock(&backend, "x").try_acquire_for(Duration::from_millis(30));
    assert!(timed.wait().unwrap().is_none());
    assert!(waiters(&backend, "x").is_empty());
}

#[test]
fn an_attempt_is_idempotent_and_an_unpolled_one_queues_nothing() {
    let dir = directory();
    let backend = open(dir.path());
    let key = LockKey::new("x").unwrap();
    let request = options("exclusive").to_request(Wait::Forever).unwrap();
    let grant = |request: &Request| match backend.acquire(&key, request) {
        Step::Ready(granted) => granted.unwrap().unwrap(),
        Step::Waiting(_) => panic!("contended"),
    };
    let first = grant(&request);
    assert_eq!(grant(&request).fence, first.fence);
    let other = options("exclusive").to_request(Wait::Forever).unwrap();
    drop(backend.acquire(&key, &other));
    assert!(waiters(&backend, "x").is_empty());
    let released = block_on(backend.release(&key, &first).finish()).unwrap();
    assert_eq!(released, Released::Released);
    let again = block_on(backend.release(&key, &first).finish()).unwrap();
    assert_eq!(again, Released::AlreadyLost);
    backend.abandon(&key, first.attempt);
    let second = grant(&other);
    backend.abandon(&key, first.attempt);
    assert_eq!(holders(&backend, "x").len(), 1);
    assert!(
        matches!((first.fence, second.fence), (Fence::Exclusive(a), Fence::Exclusive(b)) if a < b)
    );
}

#[test]
fn shared_holders_read_the_version_that_the_last_exclusive_one_wrote() {
    let dir = directory();
    let backend = open(dir.path());
    let writer = lock(&backend, "x").acquire().wait().unwrap();
    let number = writer.fencing_token().unwrap().number();
    drop(writer);
    let readers = [(); 2].map(|()| {
        let shared = lock(&backend, "x").try_acquire_with(&options("shared"));
        shared.wait().unwrap().unwrap()
    });
    for reader in &readers {
        assert_eq!(reader.read_version().unwrap().0, number);
    }
    assert!(
        lock(&open(dir.path()), "x")
            .try_acquire()
            .wait()
            .unwrap()
            .is_none()
    );
}

#[test]
fn records_tell_who_holds_also_from_outside() {
    let dir = directory();
    let (backend, outside) = (open(dir.path()), open(dir.path()));
    let owner = OwnerId::new();
    let options = AcquireOptions::new()
        .label("nightly import")
        .record(*b"bytes")
        .owner(owner);
    let mut guard = lock(&backend, "A/b").acquire_with(&options).wait().unwrap();
    let seen = &holders(&outside, "A/b")[0];
    assert_eq!(seen.attempt, guard.attempt());
    assert_eq!(seen.label.as_deref(), Some("nightly import"));
    assert_eq!(seen.record.as_deref(), Some(b"bytes".as_slice()));
    assert_eq!(seen.owner, Some(owner));
    assert_eq!(seen.fencing, Some(guard.fencing_token().unwrap().number()));
    let next = OwnerId::new();
    block_on(guard.transfer_to(next)).unwrap();
    assert_eq!(holders(&outside, "A/b")[0].owner, Some(next));

    let other = lock(&backend, "other").acquire().wait().unwrap();
    let key = LockKey::new("mine").unwrap().in_namespace("team").unwrap();
    let named = lock_core::Lock::new(Arc::new(backend), key);
    let named = named.acquire().wait().unwrap();
    let keys = |namespace: &str| {
        let page = block_on(outside.inspect(InspectQuery::namespace(namespace))).unwrap();
        let keys = page.keys.iter().map(|report| report.key.name().to_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(""), ["A/b", "other"]);
    assert_eq!(keys("team"), ["mine"]);
    drop((guard, other, named));
    assert!(keys("").is_empty() && keys("team").is_empty());
}

#[test]
fn closing_ends_waits_and_leaves_guards() {
    let dir = directory();
    let backend = open(dir.path());
    let held = lock(&backend, "x").acquire().wait().unwrap();
    let waiting = std::thread::spawn({
        let acquire = lock(&backend, "x").acquire();
        move || acquire.wait().map(drop).unwrap_err().kind()
    });
    eventually("queued", || waiters(&backend, "x").len() == 1);
    block_on(backend.close()).unwrap();
    block_on(backend.close()).unwrap();
    assert_eq!(waiting.join().unwrap(), ErrorKind::Closed);
    let refused = lock(&backend, "y").try_acquire().wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(held.is_held());
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
    assert!(
        lock(&open(dir.path()), "x")
            .try_acquire()
            .wait()
            .unwrap()
            .is_some()
    );
}

#[test]
fn what_is_not_declared_is_refused() {
    let dir = directory();
    let backend = open(dir.path());
    let lock = lock(&backend, "x");
    let second = Duration::from_secs(1);
    for options in [
        AcquireOptions::new().ttl(second),
        AcquireOptions::new().lock_delay(second),
    ] {
        let error = lock.try_acquire_with(&options).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let renewed = block_on(backend.renew(&[]));
    assert_eq!(renewed.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn files_are_closed_when_many_names_were_used() {
    let dir = directory();
    let backend = open(dir.path());
    let open_files = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|d| std::fs::read_link(d.unwrap().path()).ok());
        targets
            .filter(|target| target.starts_with(dir.path()))
            .count()
    };
    let guards: Vec<_> = (0..300)
        .map(|n| lock(&backend, &format!("k{n}")).acquire().wait().unwrap())
        .collect();
    assert_eq!(open_files(), 300);
    drop(guards);
    for n in 0..2000 {
        drop(lock(&backend, &format!("k{n}")).acquire().wait().unwrap());
    }
    assert!(open_files() <= 16 * 40, "{} files are open", open_files());
    block_on(backend.close()).unwrap();
    assert_eq!(open_files(), 0);
}

#[test]
fn random_shared_and_exclusive_holders_of_two_backends_never_overlap() {
    let dir = directory();
    let backends = [open(dir.path()), open(dir.path())];
    // The number of readers, or 1000 for a writer.
    let inside = Arc::new(AtomicU32::new(0));
    let start = Arc::new(Barrier::new(6));
    let threads: Vec<_> = (0..6u32)
        .map(|n| {
            let (inside, start) = (Arc::clone(&inside), Arc::clone(&start));
            let backend = backends[n as usize % 2].clone();
            std::thread::spawn(move || {
                start.wait();
                let mut random = n * 7919 + 1;
                for _ in 0..100 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let (mode, weight) = match random >> 30 {
                        0 => (Mode::Exclusive, 1000),
                        _ => (Mode::Shared, 1),
                    };
                    let options = AcquireOptions::new().mode(mode);
                    let guard = lock(&backend, "x").acquire_with(&options).wait().unwrap();
                    let before = inside.fetch_add(weight, Ordering::SeqCst);
                    assert!(
                        before + weight <= 1000 && (weight == 1 || before == 0),
                        "{before}"
                    );
                    inside.fetch_sub(weight, Ordering::SeqCst);
                    drop(guard);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of the user");
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_waiter_asleep() {
    let dir = directory();
    let lock = lock(&open(dir.path()), "x");
    let held = lock.acquire().wait().unwrap();
    let mut first = pin!(lock.acquire_with(&options("shared")));
    let broken = Waker::from(Arc::new(Panics));
    let polled = first.as_mut().poll(&mut Context::from_waker(&broken));
    assert!(polled.is_pending());
    let (sender, news) = std::sync::mpsc::channel();
    let mut second = lock.acquire_with(&options("shared"));
    second.on_ready(move || sender.send(()).unwrap_or(()));
    news.recv().unwrap();
    assert!(second.try_take().is_none());
    drop(held);
    news.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(second.try_take().unwrap().is_ok());
    let polled = first.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(_))));
}
