//! The uncontended path allocates nothing, and an idle key leaves nothing behind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lock_core::{Lock, LockGuard, LockKey, Result};
use lock_threading::ThreadingBackend;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "counting allocations takes an allocator")]
// SAFETY: forwards every call unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn ready_at_once(lock: &Lock) -> Result<LockGuard> {
    match pin!(lock.acquire()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("nobody else holds `{}`", lock.key()),
    }
}

#[test]
fn an_uncontended_pair_allocates_nothing() {
    let lock = Lock::new(
        Arc::new(ThreadingBackend::new()),
        LockKey::new("orders/42").unwrap(),
    );
    // The first use makes the table, the process nonce and the thread's block of tokens.
    drop(ready_at_once(&lock).unwrap());
    let made = allocations(|| {
        for _ in 0..1_000 {
            drop(ready_at_once(&lock).unwrap());
            drop(lock.acquire().wait().unwrap());
            drop(lock.try_acquire().wait().unwrap().unwrap());
        }
    });
    assert_eq!(made, 0);
}

#[test]
fn counting_sees_an_allocation() {
    assert_eq!(
        allocations(|| drop(Box::new(1))),
        1,
        "or the test above could not fail"
    );
}

#[test]
fn idle_keys_leave_nothing_in_the_table() {
    let backend = ThreadingBackend::new();
    let held: Vec<_> = (0..10_000)
        .map(|i| {
            let key = LockKey::new(format!("key/{i}")).unwrap();
            Lock::new(Arc::new(backend.clone()), key)
                .acquire()
                .wait()
                .unwrap()
        })
        .collect();
    assert_eq!(backend.keys_in_use(), 10_000);
    drop(held);
    assert_eq!(backend.keys_in_use(), 0);
}
