//! Inferred owners: suspected, reported once, never refused.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Memory, eventually, key, poll_once};
use lock_core::wrap::Deadlock;
use lock_core::{AcquireOptions, ErrorKind, Lock, OwnerId};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Counts warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() == Level::WARN {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn warnings(work: impl FnOnce(Arc<Deadlock>)) -> usize {
    let warnings = Warnings::default();
    let backend = Arc::new(Deadlock::new(Memory::new()));
    tracing::subscriber::with_default(warnings.clone(), || work(backend));
    warnings.0.load(Ordering::SeqCst)
}

fn of_key(backend: &Arc<Deadlock>, name: &str) -> Lock {
    Lock::new(Arc::new(backend.of_key(&key(name))), key(name))
}

#[test]
fn a_cycle_of_inferred_owners_is_warned_of_once_and_waits() {
    let count = warnings(|backend| {
        let lock = Lock::new(backend, key("k"));
        let guard = lock.acquire().wait().unwrap();
        let mut first = lock.acquire();
        assert!(poll_once(&mut first).is_pending());
        let mut second = lock.acquire();
        assert!(poll_once(&mut second).is_pending());
        // No deadlock after all: the guard is given back by code that does not wait.
        drop(guard);
        assert!(poll_once(&mut first).is_ready());
    });
    assert_eq!(count, 1);
}

#[test]
fn one_inferred_owner_makes_a_cycle_a_suspicion() {
    let count = warnings(|backend| {
        let (k, l) = (
            Lock::new(backend.clone(), key("k")),
            Lock::new(backend, key("l")),
        );
        let explicit = AcquireOptions::new().owner(OwnerId::new());
        let _k = k.acquire_with(&explicit).wait().unwrap();
        let _l = l.acquire().wait().unwrap();
        let mut a = k.acquire();
        assert!(poll_once(&mut a).is_pending());
        let mut b = l.acquire_with(&explicit);
        assert!(poll_once(&mut b).is_pending(), "refused on a suspicion");
    });
    assert_eq!(count, 1);
}

#[test]
fn contention_alone_is_no_suspicion() {
    let count = warnings(|backend| {
        let lock = Lock::new(backend, key("k"));
        let options = AcquireOptions::new().owner(OwnerId::new());
        let _held = lock.acquire_with(&options).wait().unwrap();
        let mut waits = lock.acquire();
        assert!(poll_once(&mut waits).is_pending());
    });
    assert_eq!(count, 0);
}

/// Trap: branches of one task. The branch that holds goes on, while the other one waits for it.
#[test]
fn branches_of_one_task_are_not_refused() {
    let count = warnings(|backend| {
        let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
        runtime().block_on(async move {
            let task = async move {
                let (start, started) = tokio::sync::oneshot::channel();
                let one = async {
                    let _k = k.acquire().await.unwrap();
                    start.send(()).unwrap();
                    // The other branch waits for `k` by now, and this one holds it.
                    tokio::task::yield_now().await;
                    drop(l.acquire().await.unwrap());
                };
                let two = async {
                    started.await.unwrap();
                    drop(k.acquire().await.unwrap());
                };
                tokio::join!(one, two);
            };
            tokio::spawn(task).await.unwrap();
        });
    });
    assert_eq!(count, 1, "a suspicion, which is reported");
}

/// Trap: a guard that was sent away. Who acquired it waits, and somebody else releases it.
#[test]
fn a_guard_in_other_hands_is_not_held_against_its_first_owner() {
    let count = warnings(|backend| {
        let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
        runtime().block_on(async move {
            let (hand, receive) = tokio::sync::oneshot::channel();
            let (first_k, first_l) = (k.clone(), l.clone());
            let held = l.acquire().await.unwrap();
            let first = tokio::spawn(async move {
                let guard = first_k.acquire().await.unwrap();
                hand.send(guard).unwrap();
                drop(first_l.acquire().await.unwrap());
            });
            let guard = receive.await.unwrap();
            let mut wants_k = k.acquire();
            while backend.graph().waiting() == 0 {
                tokio::task::yield_now().await;
            }
            // Whoever runs here holds `l` and waits for `k`, by which the first one seems to wait.
            assert!(poll_once(&mut wants_k).is_pending(), "refused");
            drop(guard);
            drop(wants_k.await.unwrap());
            drop(held);
            first.await.unwrap();
        });
    });
    assert_eq!(count, 1);
}

/// Trap: the number of a task that ended is given to another one, while a guard of the first lives.
#[test]
fn a_number_that_comes_again_is_not_proof() {
    let count = warnings(|backend| {
        let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
        let number = runtime().block_on(async {
            let task = tokio::spawn(async { OwnerId::current() });
            task.await.unwrap()
        });
        let task = AcquireOptions::new().owner(number);
        let other = AcquireOptions::new().owner(OwnerId::new());
        // By a task that has ended; the guard lives on, in hands that wait for nothing.
        let left = k.acquire_with(&task).wait().unwrap();
        let held = l.acquire_with(&other).wait().unwrap();
        let mut again = l.acquire_with(&task);
        assert!(poll_once(&mut again).is_pending());
        let mut wants_k = k.acquire_with(&other);
        assert!(poll_once(&mut wants_k).is_pending(), "refused");
        drop(left);
        assert!(poll_once(&mut wants_k).is_ready());
        drop((wants_k, held));
        assert!(poll_once(&mut again).is_ready());
    });
    assert_eq!(count, 1);
}

/// Trap: `block_on` has no task, and its thread polls more than one future.
#[test]
fn futures_of_one_thread_are_not_refused() {
    let count = warnings(|backend| {
        let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
        lock_core::block_on(async {
            let held = k.acquire().await.unwrap();
            let mut other = k.acquire();
            assert!(poll_once(&mut other).is_pending(), "refused");
            drop(l.acquire().await.unwrap());
            drop(held);
            drop(other.await.unwrap());
        });
    });
    assert_eq!(count, 1);
}

/// A parked thread surely waits, and yet what it acquired may be in other hands.
#[test]
fn a_parked_thread_is_no_proof_for_what_it_has_sent_away() {
    let backend = Arc::new(Deadlock::new(Memory::new()));
    let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
    let (hand, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let held = l.acquire().wait().unwrap();
        let (first_k, first_l) = (&k, &l);
        scope.spawn(move || {
            hand.send(first_k.acquire().wait().unwrap()).unwrap();
            drop(first_l.acquire().wait().unwrap());
        });
        let guard = receive.recv().unwrap();
        eventually("the first waits", || backend.graph().waiting() == 1);
        let graph = backend.graph();
        scope.spawn(move || {
            eventually("both wait", || graph.waiting() == 2);
            drop(guard);
        });
        drop(k.acquire().wait().expect("refused on a suspicion"));
        drop(held);
    });
}

/// The code leaves no choice here: both threads park, and their guards are lent.
#[test]
fn threads_that_hold_by_a_call_are_proven_owners() {
    let count = warnings(|backend| {
        let (k, l) = (of_key(&backend, "k"), of_key(&backend, "l"));
        let both_hold = std::sync::Barrier::new(2);
        let cross = |first: &Lock, second: &Lock| {
            first.while_held(|_guard| {
                both_hold.wait();
                second.while_held(|_guard| ()).map_err(|error| {
                    assert_eq!(error.cycle().len(), 2);
                    error.kind()
                })
            })
        };
        let outcomes = std::thread::scope(|scope| {
            let one = scope.spawn(|| cross(&k, &l).unwrap());
            let other = scope.spawn(|| cross(&l, &k).unwrap());
            [one.join().unwrap(), other.join().unwrap()]
        });
        let refused = outcomes.iter().filter_map(|outcome| outcome.err());
        assert_eq!(refused.collect::<Vec<_>>(), [ErrorKind::Deadlock]);
        // And alone: it would wait for itself.
        let again = k.while_held(|_guard| k.while_held(|_guard| ()).unwrap_err().kind());
        assert_eq!(again.unwrap(), ErrorKind::Deadlock);
    });
    assert_eq!(count, 0, "an error is no suspicion");
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime")
}
