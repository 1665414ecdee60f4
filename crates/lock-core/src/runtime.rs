//! The I/O thread: one per process, started on first need, independent of the caller's runtime.
//!
//! Timers, renewals and the connections of network backends live here, so that a lock works the
//! same under tokio, another executor, or none, and keeps its lease while the caller's threads are
//! busy. After a fork the child starts its own.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::Sleep;

use crate::fork::ForkLocal;

/// The I/O thread's runtime.
///
/// # Panics
/// When the operating system refuses a thread or an event queue, which leaves no way to keep the
/// promises made for a held lease.
#[must_use]
pub fn handle() -> &'static Handle {
    static THREAD: ForkLocal<IoThread> = ForkLocal::new();
    &THREAD.get_or_init(start).handle
}

struct IoThread {
    handle: Handle,
    /// Dropped only by the loser of a race to start: its thread then ends.
    _stop: tokio::sync::oneshot::Sender<()>,
}

#[expect(clippy::expect_used, reason = "documented under # Panics")]
fn start() -> IoThread {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("lock-callback")
        .build()
        .expect("the operating system refused an event queue for the lock I/O thread");
    let handle = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("lock-io".into())
        .spawn(move || {
            IS_IO_THREAD.set(true);
            drop(runtime.block_on(stopped));
        })
        .expect("the operating system refused a thread for lock I/O");
    IoThread {
        handle,
        _stop: stop,
    }
}

thread_local! {
    static IS_IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is the I/O thread, which must not be blocked.
pub(crate) fn is_io_thread() -> bool {
    IS_IO_THREAD.get()
}

/// Wakes, and keeps a panic in the waker to itself: it is reported, and others are woken all the
/// same. Every backend should wake by this.
pub fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a waker panicked");
    }
}

/// A timer that any executor can poll.
pub fn sleep(duration: Duration) -> Sleep {
    let _context = handle().enter();
    tokio::time::sleep(duration)
}

/// Runs code of the user on a thread of its own; a panic in it is reported and goes no further.
pub(crate) fn run_apart(work: impl FnOnce() + Send + 'static) {
    handle().spawn_blocking(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!("a lock callback panicked");
        }
    });
}
