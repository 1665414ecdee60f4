//! Waiting on a thread instead of a task.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::{Error, ErrorKind, Result, runtime};

/// Runs a future of this library to its end on the calling thread. Needs no runtime, and enters
/// none: I/O and timers are the lock I/O thread's.
///
/// # Blocking
/// Parks the thread. Do not call it on a thread that runs async tasks.
///
/// # Panics
/// When it would park the lock I/O thread, in a waker or callback that runs there: leases would no
/// longer be renewed, and what is waited for might never come.
#[expect(clippy::panic, reason = "documented under # Panics")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = thread_waker();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if let Err(error) = may_park() {
            panic!("{error}");
        }
        std::thread::park();
    }
}

/// Whether the calling thread may be parked.
///
/// # Errors
/// `Unsupported` on the lock I/O thread.
pub(crate) fn may_park() -> Result<()> {
    if runtime::is_io_thread() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "waiting here would block the lock I/O thread, which renews leases; wait on a thread of \
             your own",
        ));
    }
    Ok(())
}

/// Unparks the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One waker per thread. A late wake of an earlier wait only unparks once for nothing.
pub(crate) fn thread_waker() -> Waker {
    thread_local! {
        static WAKER: OnceCell<Waker> = const { OnceCell::new() };
    }
    WAKER.with(|waker| {
        waker
            .get_or_init(|| Waker::from(Arc::new(Unpark(std::thread::current()))))
            .clone()
    })
}
