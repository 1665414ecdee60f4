//! Waiting on a thread instead of a task.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Runs a future of this library to its end on the calling thread. Needs no runtime, and enters
/// none: I/O and timers are the lock I/O thread's.
///
/// # Blocking
/// Parks the thread. Do not call it on a thread that runs async tasks.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = thread_waker();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
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
