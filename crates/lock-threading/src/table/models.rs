//! The protocol of slots and rooms, under model checkers and a race detector.
//!
//! `loom` tries every order of steps of two or three threads, and every value that an atomic load
//! may see; `shuttle` tries many random orders of more of them; under `races` they are real threads,
//! which `ThreadSanitizer` watches. Run them by `cargo xtask models`, which also checks how many
//! executions there were.

mod common;
#[cfg(loom)]
mod exhaustive;
#[cfg(not(loom))]
mod random;
mod world;

use std::sync::Arc;
use std::task::Poll;

use lock_core::Mode;

use super::{Ask, Attempt, Claim, Details, Entered, Held, Manner, Table};
use crate::Fairness;
use crate::sync::{AtomicBool, Ordering};
#[cfg(loom)]
use exhaustive::run;
#[cfg(not(loom))]
use random::run;
use world::{Count, Key, Shared, Waiter, ask, hash, held, mint};

#[cfg(loom)]
use loom::thread;
#[cfg(all(shuttle, not(loom)))]
use shuttle::thread;
#[cfg(races)]
use std::thread;

/// Two threads on one key: the slot, moving to the room, hand-over, eviction.
fn two_on_one_key(fairness: Fairness) {
    let shared = Shared::new();
    let there = Arc::clone(&shared);
    let other = thread::spawn(move || there.lock_and_release(0, fairness));
    shared.lock_and_release(0, fairness);
    other.join().unwrap();
    assert_eq!(shared.sections(0), 2);
    assert!(shared.is_empty());
}

/// Two threads on two keys of one slot: neither may wait for the other's key for ever.
fn two_keys_of_one_slot() {
    let shared = Shared::new();
    let there = Arc::clone(&shared);
    let other = thread::spawn(move || there.lock_and_release(1, Fairness::FirstCome));
    let number = shared.lock(0, Fairness::FirstCome);
    // Nested, as users of two keys nest.
    if let Some(inner) = shared
        .table
        .try_hold(hash(1), None, Manner::EXCLUSIVE, || held(1))
    {
        shared.table.release(hash(1), inner, Manner::EXCLUSIVE);
    }
    shared.inside(0, number);
    assert!(shared.table.release(hash(0), number, Manner::EXCLUSIVE));
    other.join().unwrap();
    assert_eq!((shared.sections(0), shared.sections(1)), (1, 1));
    assert!(shared.is_empty());
}

/// A reader, and a writer or another reader.
fn a_reader_and(other: fn(&Shared, u64, Fairness), fairness: Fairness) {
    let shared = Shared::new();
    let there = Arc::clone(&shared);
    let reader = thread::spawn(move || there.read_and_release(0, fairness));
    other(&shared, 0, fairness);
    reader.join().unwrap();
    assert!(shared.is_empty());
    shared.lock_and_release(0, fairness);
}

/// The slot is taken again while a waiter that was called is on its way.
fn a_newcomer_takes_an_open_slot() {
    let shared = Shared::new();
    let there = Arc::clone(&shared);
    let waiter = thread::spawn(move || there.lock_and_release(0, Fairness::Barging));
    shared.lock_and_release(0, Fairness::Barging);
    shared.lock_and_release(0, Fairness::Barging);
    waiter.join().unwrap();
    assert_eq!(shared.sections(0), 3);
    assert!(shared.is_empty());
}

/// What is kept about a holder that leaves by its attempt; light when there is nothing to drop.
struct Known {
    attempt: Attempt,
    _kept: Option<Arc<()>>,
}

impl Details for Known {
    const ASKS_AGAIN: bool = true;

    fn attempt(&self) -> Option<Attempt> {
        Some(self.attempt)
    }

    fn note_grant(&mut self) {}
}

/// Tries for a key, and says whether it holds.
fn try_by_attempt(
    table: &Table<u64, Known>,
    key: u64,
    mode: Mode,
    attempt: Attempt,
    kept: Option<&Arc<()>>,
) -> bool {
    let known = || Known {
        attempt,
        _kept: kept.cloned(),
    };
    let make = || Held {
        key,
        details: known(),
    };
    let manner = Manner::of(mode).unwrap().light(kept.is_none());
    let held = table.try_hold(hash(key), Some(attempt), manner, make);
    held.is_some() || {
        let ask = Ask {
            mode,
            ..ask(key, attempt, Fairness::FirstCome, None)
        };
        let entered = table.enter(&ask, &Key(key), known());
        matches!(entered, Ok(Entered::Holds(_)))
    }
}

/// Leaves by the attempt, and says whether it was there.
fn leave_by_attempt(table: &Table<u64, Known>, key: u64, attempt: Attempt) -> bool {
    let claim = Claim::Attempt(attempt, None);
    table
        .release_attempt(hash(key), attempt)
        .unwrap_or_else(|_| table.leave(hash(key), |kept| *kept == key, claim))
}

/// Returns whether it held meanwhile.
fn try_and_leave_by_attempt(table: &Table<u64, Known>, mode: Mode, kept: Option<&Arc<()>>) -> bool {
    let attempt = mint();
    let holds = try_by_attempt(table, 0, mode, attempt, kept);
    let left = leave_by_attempt(table, 0, attempt);
    assert_eq!(left, holds, "it held, and was not there when it left");
    holds
}

/// A holder leaves by its attempt while another looks in the room, and goes away again or holds as
/// well. One of them is light, and leaves its slot in one swap.
fn an_attempt_leaves_before_eyes(mode: Mode) {
    let (table, kept) = (Arc::new(Table::new(1)), Arc::new(()));
    let there = Arc::clone(&table);
    let other = thread::spawn(move || try_and_leave_by_attempt(&there, mode, None));
    let held = try_and_leave_by_attempt(&table, mode, Some(&kept));
    let other_held = other.join().unwrap();
    assert!(other_held || held, "nobody was let in");
    let all_held = other_held && held;
    assert!(all_held || mode == Mode::Exclusive, "a reader was kept out");
    assert_eq!(table.len(), 0);
    assert_eq!(Arc::strong_count(&kept), 1, "what was kept was not dropped");
}

/// Two keys meet in the only slot, and move apart while one is held and the other is waited for.
fn two_keys_part(fairness: Fairness) {
    let shared = Shared::growing();
    let number = shared.lock(1, fairness);
    let there = Arc::clone(&shared);
    let other = thread::spawn(move || there.lock_and_release(0, fairness));
    shared.lock_and_release(0, fairness);
    shared.inside(1, number);
    let was_there = shared.table.release(hash(1), number, Manner::EXCLUSIVE);
    assert!(was_there, "the hold was not there");
    shared.lock_and_release(1, fairness);
    other.join().unwrap();
    assert_eq!((shared.sections(0), shared.sections(1)), (2, 2));
    assert!(shared.is_empty());
}

/// A holder leaves by its attempt while another key comes to the slot, and again, so that they part.
fn an_attempt_leaves_as_keys_part() {
    let (table, kept) = (Arc::new(Table::growing_from(1, 2)), Arc::new(()));
    let there = Arc::clone(&table);
    let other = thread::spawn(move || {
        let attempt = mint();
        assert!(try_by_attempt(&there, 1, Mode::Exclusive, attempt, None));
        assert!(leave_by_attempt(&there, 1, attempt));
    });
    for kept in [Some(&kept), None] {
        assert!(try_and_leave_by_attempt(&table, Mode::Exclusive, kept));
    }
    other.join().unwrap();
    assert_eq!(table.len(), 0);
    assert_eq!(Arc::strong_count(&kept), 1, "what was kept was not dropped");
}

/// A flag is raised, and then it is looked who holds: whoever came before is seen, and whoever comes
/// later sees the flag.
fn a_holder_is_seen_or_sees() {
    let shared = Shared::new();
    let raised = Arc::new(AtomicBool::new(false));
    let (there, flag) = (Arc::clone(&shared), Arc::clone(&raised));
    let holder = thread::spawn(move || {
        let number = there.lock(0, Fairness::FirstCome);
        let saw = flag.load(Ordering::Relaxed);
        (number, saw)
    });
    raised.store(true, Ordering::Relaxed);
    let held = shared.table.holders(hash(0), |key| *key == 0, |()| true);
    let (number, saw) = holder.join().unwrap();
    assert!(held == 1 || saw, "neither was seen");
    assert!(shared.table.release(hash(0), number, Manner::EXCLUSIVE));
    assert!(shared.is_empty());
}

/// A waiter leaves while the holder hands the lock over to it, or calls it.
fn a_waiter_leaves(fairness: Fairness) {
    let shared = Shared::new();
    let there = Arc::clone(&shared);
    let leaver = thread::spawn(move || there.queue_and_leave(0, fairness));
    shared.lock_and_release(0, Fairness::FirstCome);
    leaver.join().unwrap();
    assert!(shared.is_empty(), "an entry was left behind");
    shared.lock_and_release(0, Fairness::FirstCome);
}

/// A waiter is let in, and looks while a neighbour in the slot gets a number.
fn one_is_let_in_beside_another_key() {
    let shared = Shared::new();
    let number = shared.lock(0, Fairness::FirstCome);
    let (attempt, waiter) = (mint(), Waiter::new());
    let asked = shared.ask(0, attempt, Fairness::FirstCome, Some(&waiter.waker));
    assert!(matches!(asked, Entered::Waits(_)), "{asked:?}");
    let there = Arc::clone(&shared);
    let neighbour = thread::spawn(move || there.lock_and_release(1, Fairness::FirstCome));
    shared.inside(0, number);
    assert!(shared.table.release(hash(0), number, Manner::EXCLUSIVE));
    let found = shared.look(0, attempt, &waiter.waker);
    let Some(Poll::Ready(pass)) = found else {
        panic!("not let in: {found:?}");
    };
    shared.inside(0, pass.number);
    assert!(
        shared
            .table
            .release(hash(0), pass.number, Manner::EXCLUSIVE),
        "not its number"
    );
    neighbour.join().unwrap();
    assert_eq!((shared.sections(0), shared.sections(1)), (2, 1));
    assert!(shared.is_empty());
}

/// A third thread waits behind one that leaves.
fn a_waiter_leaves_before_another(fairness: Fairness) {
    let shared = Shared::new();
    let number = shared.lock(0, Fairness::FirstCome);
    let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
    let leaver = thread::spawn(move || one.queue_and_leave(0, fairness));
    let waiter = thread::spawn(move || two.lock_and_release(0, fairness));
    shared.inside(0, number);
    assert!(shared.table.release(hash(0), number, Manner::EXCLUSIVE));
    leaver.join().unwrap();
    waiter.join().unwrap();
    assert!(shared.is_empty());
}

/// Runs a model by the checker at hand, and says how often.
fn check(name: &'static str, model: impl Fn() + Sync + Send + 'static) {
    let count = Arc::new(Count::new(name));
    let counted = Arc::clone(&count);
    run(move || {
        counted.one();
        model();
    });
    count.report();
}
