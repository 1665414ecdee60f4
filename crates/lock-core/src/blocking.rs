//! Waiting on a thread instead of a task.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use crate::parking::ParkedThread;
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
    let thread = ParkedThread::current();
    loop {
        if let Poll::Ready(output) = thread.poll(|context| future.as_mut().poll(context)) {
            return output;
        }
        if let Err(error) = may_park() {
            panic!("{error}");
        }
        thread.park(None);
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
