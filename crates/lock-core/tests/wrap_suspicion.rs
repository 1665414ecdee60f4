//! Inferred owners: suspected, reported once, never refused.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Memory, key, poll_once};
use lock_core::wrap::Deadlock;
use lock_core::{AcquireOptions, Lock, OwnerId};
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
