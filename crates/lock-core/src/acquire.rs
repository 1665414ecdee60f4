//! A pending acquire: one primitive under async, blocking and foreign event loops.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::Sleep;

use crate::blocking::{may_park, thread_waker};
use crate::clock::Instant;
use crate::lock::Shared;
use crate::{
    AcquireOptions, BoxFuture, Error, ErrorKind, Grant, LockGuard, OwnerToken, Request, Result,
    Step, Wait, fork, runtime,
};

/// A pending acquire. It keeps its place in the queue until it is dropped.
///
/// Await it from any executor; [`wait`](Self::wait) for it on a thread; or let a foreign event loop
/// drive it: [`on_ready`](Self::on_ready) or [`readiness`](Self::readiness) tell when to call
/// [`try_take`](Self::try_take). It needs no ambient runtime, and runs no callback under a lock.
///
/// # Cancel safety
/// Dropping it at any point leaves no lock and no queue entry.
#[derive(Debug)]
#[must_use = "an acquire does nothing unless it is awaited or waited for"]
pub struct Acquire {
    attempt: Attempt,
    notify: Option<Waker>,
}

impl Acquire {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self {
            attempt,
            notify: None,
        }
    }

    /// Waits on the calling thread instead of a task.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire); `Unsupported` when it would have to wait on the
    /// lock I/O thread, in a waker that runs there.
    ///
    /// # Blocking
    /// Parks the thread as long as the wait limit allows. Do not call it on a thread that runs
    /// async tasks.
    pub fn wait(mut self) -> Result<LockGuard> {
        self.attempt
            .wait()
            .and_then(|granted| self.attempt.or_timeout(granted))
    }

    /// Starts the acquire and runs `callback` whenever it may be ready: then call
    /// [`try_take`](Self::try_take). The callback runs on whatever thread made it ready, should
    /// only pass the news on, and may run more than once.
    pub fn on_ready(&mut self, callback: impl Fn() + Send + Sync + 'static) {
        let waker = Waker::from(Arc::new(Callback(callback)));
        waker.wake_by_ref();
        self.notify = Some(waker);
    }

    /// Starts the acquire and returns a descriptor that becomes readable when it may be ready: then
    /// read what is there and call [`try_take`](Self::try_take).
    ///
    /// # Errors
    /// When the operating system refuses a pipe; the acquire is then as it was.
    pub fn readiness(&mut self) -> std::io::Result<std::io::PipeReader> {
        use std::io::Write as _;
        use std::sync::atomic::{AtomicBool, Ordering};
        let (reader, writer) = std::io::pipe()?;
        let written = AtomicBool::new(false);
        // One byte for the first poll, one for the news: the pipe can never be full.
        self.on_ready(move || {
            if !written.swap(true, Ordering::AcqRel) {
                let _ = (&writer).write_all(&[1]);
            } else {
                let _ = (&writer).write(&[1]);
            }
        });
        Ok(reader)
    }

    /// The outcome, if it is there; `None` while the acquire is pending. Never blocks.
    pub fn try_take(&mut self) -> Option<Result<LockGuard>> {
        let waker = self.notify.clone().unwrap_or_else(|| Waker::noop().clone());
        match Pin::new(self).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = std::task::ready!(self.attempt.poll(context));
        Poll::Ready(granted.and_then(|granted| self.attempt.or_timeout(granted)))
    }
}

struct Callback<F>(F);

impl<F: Fn() + Send + Sync> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        // Whoever made it ready has others to wake.
        if catch_unwind(AssertUnwindSafe(|| (self.0)())).is_err() {
            tracing::error!("a readiness callback panicked");
        }
    }
}

/// One attempt from request to guard. Dropping it ends the attempt, in any state.
pub(crate) struct Attempt {
    shared: Arc<Shared>,
    /// The fork generation it was made in.
    generation: u64,
    limits: HoldLimits,
    state: State,
}

/// What the guard needs of the options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HoldLimits {
    pub(crate) max_hold: Option<std::time::Duration>,
    pub(crate) at_least: Option<std::time::Duration>,
}

impl HoldLimits {
    pub(crate) fn of(options: &AcquireOptions) -> Self {
        Self {
            max_hold: options.max_hold,
            at_least: options.hold_at_least,
        }
    }
}

enum State {
    /// Not asked yet; or the options were refused.
    New(Result<Request>),
    /// The backend knows the attempt.
    Asked {
        request: Request,
        step: Option<BoxFuture<Result<Option<Grant>>>>,
        timer: Option<Pin<Box<Sleep>>>,
    },
    Over,
}

impl Attempt {
    pub(crate) fn new(
        shared: Arc<Shared>,
        request: Result<Request>,
        options: &AcquireOptions,
    ) -> Self {
        let limits = HoldLimits::of(options);
        Self {
            shared,
            generation: fork::generation(),
            limits,
            state: State::New(request),
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<LockGuard>>> {
        if let Some(outcome) = self.ask() {
            return Poll::Ready(outcome);
        }
        loop {
            if let Poll::Ready(outcome) = self.poll_step(context) {
                return Poll::Ready(outcome);
            }
            let State::Asked { request, timer, .. } = &mut self.state else {
                return Poll::Pending;
            };
            let Some(deadline) = request.wait.deadline() else {
                return Poll::Pending;
            };
            let sleep = timer.get_or_insert_with(|| Box::pin(runtime::sleep(deadline.remaining())));
            std::task::ready!(sleep.as_mut().poll(context));
            // The timer's clock stops in suspend, ours does not; and it may fire early.
            *timer = None;
            if deadline.has_passed() {
                return Poll::Ready(self.give_up());
            }
        }
    }

    /// Waits on this thread, which is parked with the time limit instead of a timer.
    pub(crate) fn wait(&mut self) -> Result<Option<LockGuard>> {
        if let Some(outcome) = self.ask() {
            return outcome;
        }
        let waker = thread_waker();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = self.poll_step(&mut context) {
                return outcome;
            }
            let State::Asked { request, .. } = &self.state else {
                return Ok(None);
            };
            let deadline = request.wait.deadline();
            if let Err(error) = may_park() {
                self.end();
                return Err(error.with_key(&self.shared.key));
            }
            match deadline {
                None => std::thread::park(),
                Some(deadline) if deadline.has_passed() => return self.give_up(),
                Some(deadline) => std::thread::park_timeout(deadline.remaining()),
            }
        }
    }

    /// The first contact with the backend; answers at once when nobody is in the way.
    fn ask(&mut self) -> Option<Result<Option<LockGuard>>> {
        if !matches!(self.state, State::New(_)) {
            return None;
        }
        if self.generation != fork::generation() {
            self.state = State::Over;
            return Some(Err(self.forked()));
        }
        let State::New(request) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let mut request = match request {
            Ok(request) => request,
            Err(error) => return Some(Err(error.with_key(&self.shared.key))),
        };
        if request.wait.deadline().is_some_and(Instant::has_passed) {
            request.wait = Wait::Now;
        }
        // Invariant: from here on the attempt is ended by `Drop`, also if the backend panics.
        self.state = State::Asked {
            request,
            step: None,
            timer: None,
        };
        let State::Asked { request, step, .. } = &mut self.state else {
            return None;
        };
        match self.shared.backend.acquire(&self.shared.key, request) {
            Step::Ready(outcome) => Some(self.settle(outcome)),
            Step::Waiting(future) => {
                *step = Some(future);
                None
            }
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<LockGuard>>> {
        if self.generation != fork::generation() {
            return Poll::Ready(Err(self.forked()));
        }
        let State::Asked {
            step: Some(step), ..
        } = &mut self.state
        else {
            return Poll::Pending;
        };
        let outcome = std::task::ready!(step.as_mut().poll(context));
        Poll::Ready(self.settle(outcome))
    }

    /// Turns the backend's answer into a guard, or ends the attempt.
    fn settle(&mut self, outcome: Result<Option<Grant>>) -> Result<Option<LockGuard>> {
        match outcome {
            Ok(Some(grant)) => {
                let State::Asked { request, .. } = std::mem::replace(&mut self.state, State::Over)
                else {
                    return Ok(None);
                };
                let shared = Arc::clone(&self.shared);
                let guard = LockGuard::new(shared, grant, request.mode);
                Ok(Some(guard.limited(self.limits)))
            }
            Ok(None) => {
                self.state = State::Over;
                Ok(None)
            }
            Err(error) => {
                self.end();
                Err(match error.key() {
                    Some(_) => error,
                    None => error.with_key(&self.shared.key),
                })
            }
        }
    }

    fn give_up(&mut self) -> Result<Option<LockGuard>> {
        self.end();
        Ok(None)
    }

    /// Ends the attempt: the backend hears of it once, after its future is gone.
    fn end(&mut self) {
        let State::Asked {
            request,
            step,
            timer,
        } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        if self.generation == fork::generation() {
            let attempt: OwnerToken = request.attempt;
            drop((step, timer));
            self.shared.backend.abandon(&self.shared.key, attempt);
        } else {
            // Their drop may wait for a mutex whose owner stayed in the parent.
            std::mem::forget((step, timer));
        }
    }

    pub(crate) fn or_timeout(&self, granted: Option<LockGuard>) -> Result<LockGuard> {
        granted.ok_or_else(|| {
            Error::new(ErrorKind::Timeout, "another holder kept it the whole time")
                .with_key(&self.shared.key)
                .with_backend(self.shared.backend.capabilities().name)
        })
    }

    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            "the acquire was started before a fork; start it again",
        )
        .with_key(&self.shared.key)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "new",
            State::Asked { .. } => "asked",
            State::Over => "over",
        };
        f.debug_struct("Attempt")
            .field("key", &self.shared.key)
            .field("state", &state)
            .finish()
    }
}
