//! How a thread that waits for a lock sleeps.
//!
//! A thread in `wait` polls and parks. A backend whose news come through something that a thread
//! can sleep on by itself, a word that processes share for instance, says so while it is polled, by
//! [`park_by`]: the news then wake that thread directly, not by way of the I/O thread.

use std::cell::{Cell, OnceCell};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Something that a thread can sleep on, and be woken from by others than this library.
pub trait Parking: Debug + Send + Sync {
    /// Sleeps until it is [`unpark`](Self::unpark)ed, which may have happened since this value was
    /// made, until `limit` has passed, or until there are news. May return for no reason.
    fn park(&self, limit: Option<Duration>);

    /// Wakes whoever sleeps on it, also one that is about to.
    fn unpark(&self);
}

/// Whether the running poll is that of a thread that is going to park itself, so that
/// [`park_by`] has an effect.
#[must_use]
pub fn parks() -> bool {
    POLLING.get()
}

/// The thread that polls now parks by `parking` the next time, and only then. Nothing happens
/// unless it [`parks`].
pub fn park_by(parking: Arc<dyn Parking>) {
    if parks() {
        ParkedThread::with_current(|waker| {
            *waker.other() = Some(parking);
            waker.has_other.store(true, Ordering::SeqCst);
        });
    }
}

thread_local! {
    static POLLING: Cell<bool> = const { Cell::new(false) };
    /// One for each thread. A late wake of an earlier wait only wakes once for nothing.
    static CURRENT: OnceCell<Arc<ThreadWaker>> = const { OnceCell::new() };
}

/// The calling thread, which polls and parks in turn.
pub(crate) struct ParkedThread {
    waker: Arc<ThreadWaker>,
    as_waker: Waker,
}

impl ParkedThread {
    pub(crate) fn current() -> Self {
        let waker = Self::with_current(Arc::clone);
        Self {
            as_waker: Waker::from(Arc::clone(&waker)),
            waker,
        }
    }

    fn with_current<R>(work: impl FnOnce(&Arc<ThreadWaker>) -> R) -> R {
        CURRENT.with(|current| work(current.get_or_init(|| Arc::new(ThreadWaker::new()))))
    }

    pub(crate) fn poll<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.waker.is_woken.store(false, Ordering::Relaxed);
        let _reset = Polling(POLLING.replace(true));
        poll(&mut Context::from_waker(&self.as_waker))
    }

    /// Sleeps until it is woken, or `limit` has passed, or for no reason. Not on the I/O thread:
    /// see [`may_park`](crate::blocking::may_park).
    pub(crate) fn park(&self, limit: Option<Duration>) {
        if !self.waker.has_other.load(Ordering::Relaxed) {
            return match limit {
                None => std::thread::park(),
                Some(limit) => std::thread::park_timeout(limit),
            };
        }
        let other = self.waker.other().clone();
        // Invariant: `has_other` is set before this look at `is_woken`, and `wake` sets `is_woken`
        // before it looks at `has_other`: one of the two sees the other.
        if let Some(other) = other
            && !self.waker.is_woken.load(Ordering::SeqCst)
        {
            other.park(limit);
        }
        self.waker.has_other.store(false, Ordering::Relaxed);
        *self.waker.other() = None;
    }
}

/// Polls of one thread nest: a waker of the user may wait for another lock.
struct Polling(bool);

impl Drop for Polling {
    fn drop(&mut self) {
        POLLING.set(self.0);
    }
}

struct ThreadWaker {
    thread: Thread,
    is_woken: AtomicBool,
    has_other: AtomicBool,
    other: Mutex<Option<Arc<dyn Parking>>>,
}

impl ThreadWaker {
    fn new() -> Self {
        Self {
            thread: std::thread::current(),
            is_woken: AtomicBool::new(false),
            has_other: AtomicBool::new(false),
            other: Mutex::new(None),
        }
    }

    fn other(&self) -> MutexGuard<'_, Option<Arc<dyn Parking>>> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if self.has_other.load(Ordering::SeqCst) {
            let other = self.other().clone();
            if let Some(other) = other {
                other.unpark();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    #[derive(Debug, Default)]
    struct Bed {
        woken: Mutex<bool>,
        news: Condvar,
        sleepers: Mutex<u32>,
    }

    impl Parking for Bed {
        fn park(&self, limit: Option<Duration>) {
            assert_eq!(limit, None);
            *self.sleepers.lock().unwrap() += 1;
            let woken = self.woken.lock().unwrap();
            drop(self.news.wait_while(woken, |woken| !*woken).unwrap());
        }

        fn unpark(&self) {
            *self.woken.lock().unwrap() = true;
            self.news.notify_all();
        }
    }

    #[test]
    fn a_wake_reaches_a_thread_that_sleeps_elsewhere() {
        let bed = Arc::new(Bed::default());
        let (sender, wakers) = std::sync::mpsc::channel::<Waker>();
        let sleeper = std::thread::spawn({
            let bed = Arc::clone(&bed);
            move || {
                let thread = ParkedThread::current();
                let pending = thread.poll(|context| {
                    assert!(parks());
                    park_by(bed);
                    sender.send(context.waker().clone()).unwrap();
                    Poll::<()>::Pending
                });
                assert!(pending.is_pending() && !parks());
                thread.park(None);
            }
        });
        wakers.recv().unwrap().wake();
        sleeper.join().unwrap();
        let before = *bed.sleepers.lock().unwrap();
        // The choice was for one time, and does not reach threads that do not park.
        park_by(Arc::clone(&bed) as Arc<dyn Parking>);
        let thread = ParkedThread::current();
        let _ = thread.poll(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        thread.park(None);
        assert_eq!(*bed.sleepers.lock().unwrap(), before);
    }
}
