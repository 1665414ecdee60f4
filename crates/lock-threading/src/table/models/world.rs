//! What the models share: a table, what it protects, and threads that sleep and wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};
use std::task::{Poll, Wake, Waker};

use lock_core::{Mode, OwnerToken};

use super::super::{Ask, Attempt, Claim, Entered, Held, Manner, Pass, Sought, Table};
use super::thread;
use crate::Fairness;
use crate::sync::UnsafeCell;

/// Every key has the same slot while there is one slot, and another when there are more.
pub(super) fn hash(key: u64) -> u64 {
    key << 24
}

/// What the lock protects: two who are inside at once are a race that the checker reports, or an
/// update that is lost.
pub(super) struct Shared {
    pub(super) table: Table<u64, ()>,
    value: [UnsafeCell<u64>; 2],
    last_number: [UnsafeCell<u64>; 2],
}

#[expect(unsafe_code, reason = "the point of the model")]
// SAFETY: what the models check is that the table makes accesses exclusive.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Self::of(Table::new(1))
    }

    /// One slot, and two as soon as two keys have met there.
    pub(super) fn growing() -> Arc<Self> {
        Self::of(Table::growing_from(1, 2))
    }

    fn of(table: Table<u64, ()>) -> Arc<Self> {
        Arc::new(Self {
            table,
            value: [UnsafeCell::new(0), UnsafeCell::new(0)],
            last_number: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    /// The section: not atomic, and the fencing number must have risen.
    pub(super) fn inside(&self, key: u64, number: u64) {
        let at = key as usize;
        #[expect(unsafe_code, reason = "the point of the model")]
        self.value[at].with_mut(|value| {
            // SAFETY: the lock of this key is held.
            unsafe {
                *value += 1;
            }
        });
        #[expect(unsafe_code, reason = "the point of the model")]
        self.last_number[at].with_mut(|last| {
            // SAFETY: as above.
            unsafe {
                assert!(*last < number, "a fencing number went back");
                *last = number;
            }
        });
    }

    pub(super) fn sections(&self, key: u64) -> u64 {
        #[expect(unsafe_code, reason = "the point of the model")]
        self.value[key as usize].with(|value| {
            // SAFETY: all threads are joined, or the lock of this key is held.
            unsafe { *value }
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Waits until it holds, runs the section, and releases.
    pub(super) fn lock_and_release(&self, key: u64, fairness: Fairness) {
        let number = self.lock(key, fairness);
        self.inside(key, number);
        assert!(
            self.table.release(hash(key), number, Manner::EXCLUSIVE),
            "the hold was not there"
        );
    }

    /// The same for a reader, which may be there with others.
    pub(super) fn read_and_release(&self, key: u64, fairness: Fairness) {
        let number = self.lock_as(Mode::Shared, key, fairness);
        self.sections(key);
        let was_there = self.table.release(hash(key), number, Manner::SHARED);
        assert!(was_there, "the hold was not there");
    }

    pub(super) fn lock(&self, key: u64, fairness: Fairness) -> u64 {
        self.lock_as(Mode::Exclusive, key, fairness)
    }

    fn lock_as(&self, mode: Mode, key: u64, fairness: Fairness) -> u64 {
        let manner = Manner::of(mode).unwrap();
        if let Some(number) = self.table.try_hold(hash(key), None, manner, || held(key)) {
            return number;
        }
        let waiter = Waiter::new();
        let attempt = mint();
        let ask = ask(key, attempt, fairness, Some(&waiter.waker));
        match self.enter(key, &Ask { mode, ..ask }) {
            Entered::Holds(pass) => return pass.number,
            Entered::Waits(_) => {}
            Entered::Contended => panic!("contended although it may wait"),
        }
        loop {
            // Also before it was woken: others may look at any time.
            if let Some(Poll::Ready(pass)) = self.look(key, attempt, &waiter.waker) {
                return pass.number;
            }
            waiter.park();
        }
    }

    /// Queues, unless it holds at once, and leaves without having looked again.
    pub(super) fn queue_and_leave(&self, key: u64, fairness: Fairness) {
        let waiter = Waiter::new();
        let attempt = mint();
        match self.ask(key, attempt, fairness, Some(&waiter.waker)) {
            Entered::Holds(pass) => {
                self.inside(key, pass.number);
                assert!(
                    self.table
                        .release(hash(key), pass.number, Manner::EXCLUSIVE)
                );
            }
            Entered::Waits(ticket) => {
                let claim = Claim::Attempt(attempt, ticket);
                assert!(self.table.leave(hash(key), |kept| *kept == key, claim));
            }
            Entered::Contended => panic!("contended although it may wait"),
        }
    }

    pub(super) fn ask(
        &self,
        key: u64,
        attempt: Attempt,
        fairness: Fairness,
        waker: Option<&Waker>,
    ) -> Entered {
        self.enter(key, &ask(key, attempt, fairness, waker))
    }

    fn enter(&self, key: u64, ask: &Ask<'_>) -> Entered {
        let entered = self.table.enter(ask, &Key(key), ());
        entered.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    pub(super) fn look(&self, key: u64, attempt: Attempt, waker: &Waker) -> Option<Poll<Pass>> {
        self.table
            .poll(hash(key), |kept| *kept == key, attempt, waker)
    }
}

pub(super) fn ask(
    key: u64,
    attempt: Attempt,
    fairness: Fairness,
    waker: Option<&Waker>,
) -> Ask<'_> {
    Ask {
        hash: hash(key),
        mode: Mode::Exclusive,
        priority: 0,
        attempt,
        fairness,
        waker,
    }
}

pub(super) struct Key(pub(super) u64);

impl Sought<u64> for Key {
    fn make(&self) -> u64 {
        self.0
    }

    fn is(&self, key: &u64) -> bool {
        *key == self.0
    }

    fn hash_of(&self, key: &u64) -> u64 {
        hash(*key)
    }

    fn are_same(&self, one: &u64, other: &u64) -> bool {
        one == other
    }
}

pub(super) fn mint() -> Attempt {
    OwnerToken::mint().counter()
}

pub(super) fn held(key: u64) -> Held<u64, ()> {
    Held { key, details: () }
}

/// A thread that sleeps until it is woken.
pub(super) struct Waiter {
    pub(super) waker: Waker,
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Waiter {
    pub(super) fn new() -> Self {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Self { waker }
    }

    pub(super) fn park(&self) {
        thread::park();
    }
}

/// Counts executions, and says how many there were.
pub(super) struct Count {
    name: &'static str,
    executions: AtomicUsize,
}

impl Count {
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            executions: AtomicUsize::new(0),
        }
    }

    pub(super) fn one(&self) {
        self.executions.fetch_add(1, Plain::Relaxed);
    }

    #[expect(
        clippy::print_stdout,
        reason = "the task that runs the models reads it"
    )]
    pub(super) fn report(&self) {
        let executions = self.executions.load(Plain::Relaxed);
        println!("model {}: {executions} executions", self.name);
    }
}
