//! A pending acquire: one primitive under async, blocking and foreign event loops.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::coop;
use tokio::time::Sleep;

use crate::blocking::may_park;
use crate::clock::Instant;
use crate::lock::Shared;
use crate::parking::ParkedThread;
use crate::{
    AcquireOptions, Anchor, BoxFuture, Error, ErrorKind, FencingNumber, Grant, LockGuard, Mode,
    OwnerToken, PlainRequest, Result, Step, Wait, fork, runtime,
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
pub struct Acquire(Attempt);

impl Acquire {
    #[inline]
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self(attempt)
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
    #[inline]
    pub fn wait(mut self) -> Result<LockGuard> {
        self.0.wait(Ok, Attempt::or_timeout)
    }

    /// Starts the acquire and runs `callback` whenever it may be ready: then call
    /// [`try_take`](Self::try_take). The callback runs on whatever thread made it ready, should
    /// only pass the news on, and may run more than once.
    pub fn on_ready(&mut self, callback: impl Fn() + Send + Sync + 'static) {
        let waker = Waker::from(Arc::new(Callback(callback)));
        waker.wake_by_ref();
        self.0.rest().notify = Some(waker);
    }

    /// Starts the acquire and returns a descriptor that becomes readable when it may be ready: then
    /// read what is there and call [`try_take`](Self::try_take).
    ///
    /// # Errors
    /// When the operating system refuses a pipe; the acquire is then as it was.
    pub fn readiness(&mut self) -> std::io::Result<std::io::PipeReader> {
        let (reader, tell) = readiness_pipe()?;
        self.on_ready(tell);
        Ok(reader)
    }

    /// The outcome, if it is there; `None` while the acquire is pending. Never blocks.
    pub fn try_take(&mut self) -> Option<Result<LockGuard>> {
        let notify = self.0.rest.as_ref().and_then(|rest| rest.notify.clone());
        let waker = notify.unwrap_or_else(|| Waker::noop().clone());
        match Pin::new(self).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context, Ok, Attempt::or_timeout)
    }
}

/// A descriptor, and what makes it readable without ever blocking.
fn readiness_pipe() -> std::io::Result<(std::io::PipeReader, impl Fn() + Send + Sync)> {
    use std::io::Write as _;
    let (reader, writer) = std::io::pipe()?;
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK)?;
    // A full pipe refuses the byte, and is readable, which is all that it has to be.
    let tell = move || drop((&writer).write(&[1]));
    Ok((reader, tell))
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
///
/// It is small, and the request is made where it is shown to the backend: to move a request costs as
/// much as a lock.
pub(crate) struct Attempt {
    /// Goes to the guard.
    shared: Option<Arc<Shared>>,
    wait: Wait,
    site: &'static Location<'static>,
    /// The fork generation it was made in.
    generation: u64,
    anchor: Anchor,
    /// Whether the backend has been asked.
    asked: bool,
    rest: Option<Box<Rest>>,
}

/// What most attempts have nothing of.
#[derive(Default)]
struct Rest {
    /// `None` for those of the lock.
    options: Option<AcquireOptions>,
    /// While it must wait.
    waiting: Option<Waiting>,
    notify: Option<Waker>,
}

/// What the guard needs of the options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HoldLimits {
    pub(crate) max_hold: Option<std::time::Duration>,
    pub(crate) at_least: Option<std::time::Duration>,
}

impl HoldLimits {
    /// `None` when nothing bounds the hold.
    pub(crate) fn of(options: &AcquireOptions) -> Option<Self> {
        let (max_hold, at_least) = (options.max_hold, options.hold_at_least);
        (max_hold.is_some() || at_least.is_some()).then_some(Self { max_hold, at_least })
    }
}

/// Ends an attempt whose backend panics, or answers with an error.
struct Abandon<'a> {
    shared: &'a Shared,
    attempt: OwnerToken,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.shared.backend.abandon(&self.shared.key, self.attempt);
    }
}

struct Waiting {
    attempt: OwnerToken,
    mode: Mode,
    step: BoxFuture<Result<Option<Grant>>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Attempt {
    #[inline]
    pub(crate) fn new(shared: Arc<Shared>, wait: Wait, site: &'static Location<'static>) -> Self {
        Self {
            shared: Some(shared),
            wait,
            site,
            generation: fork::generation(),
            anchor: Anchor::None,
            asked: false,
            rest: None,
        }
    }

    /// With options of its own.
    pub(crate) fn with_options(mut self, options: AcquireOptions) -> Self {
        self.rest().options = Some(options);
        self
    }

    /// States what is certain about where it waits and holds.
    pub(crate) fn anchor(&mut self, anchor: Anchor) {
        self.anchor = anchor;
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn waiting(&mut self) -> Option<&mut Waiting> {
        self.rest.as_mut()?.waiting.as_mut()
    }

    fn options(&self) -> &AcquireOptions {
        let own = self.rest.as_ref().and_then(|rest| rest.options.as_ref());
        own.unwrap_or_else(|| &self.shared().options)
    }

    fn shared(&self) -> &Shared {
        // Invariant: `shared` goes to the guard with the last answer, after which nobody asks.
        self.shared
            .as_deref()
            .unwrap_or_else(|| unreachable!("an acquire that has answered is asked no more"))
    }

    /// Polls for an answer in the caller's own words: those for a guard that is there at once are
    /// apart, so that it is made where the caller wants it. To move it costs as much as a lock.
    #[inline(always)]
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        holds: impl FnOnce(LockGuard) -> T,
        otherwise: impl FnOnce(&Self, Result<Option<LockGuard>>) -> T,
    ) -> Poll<T> {
        if !self.asked {
            // A task that never has to wait must let others of its thread run all the same.
            let budget = std::task::ready!(coop::poll_proceed(context));
            if let Some((shared, attempt, number)) = self.ask_plainly() {
                budget.made_progress();
                return Poll::Ready(holds(LockGuard::plain(shared, attempt, number)));
            }
            if let Some(outcome) = self.ask() {
                budget.made_progress();
                return Poll::Ready(otherwise(self, outcome));
            }
        }
        let outcome = std::task::ready!(self.poll_waiting(context));
        Poll::Ready(otherwise(self, outcome))
    }

    #[cold]
    #[inline(never)]
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<LockGuard>>> {
        loop {
            if let Poll::Ready(outcome) = self.poll_step(context) {
                return Poll::Ready(outcome);
            }
            let deadline = self.wait.deadline();
            let (Some(waiting), Some(deadline)) = (self.waiting(), deadline) else {
                return Poll::Pending;
            };
            let timer = &mut waiting.timer;
            let sleep = timer.get_or_insert_with(|| Box::pin(runtime::sleep(deadline.remaining())));
            std::task::ready!(sleep.as_mut().poll(context));
            // The timer's clock stops in suspend, ours does not; and it may fire early.
            *timer = None;
            if deadline.has_passed() {
                return Poll::Ready(self.give_up());
            }
        }
    }

    /// Waits on this thread, which is parked with the time limit instead of a timer. The answer is in
    /// the caller's own words, as in [`poll`](Self::poll).
    #[inline(always)]
    pub(crate) fn wait<T>(
        &mut self,
        holds: impl FnOnce(LockGuard) -> T,
        otherwise: impl FnOnce(&Self, Result<Option<LockGuard>>) -> T,
    ) -> T {
        // Whatever runs this does nothing else until there is an answer.
        self.anchor = self.anchor.max(Anchor::Wait);
        if !self.asked {
            if let Some((shared, attempt, number)) = self.ask_plainly() {
                return holds(LockGuard::plain(shared, attempt, number));
            }
            if let Some(outcome) = self.ask() {
                return otherwise(self, outcome);
            }
        }
        let outcome = self.park();
        otherwise(self, outcome)
    }

    #[cold]
    #[inline(never)]
    fn park(&mut self) -> Result<Option<LockGuard>> {
        let thread = ParkedThread::current();
        loop {
            if let Poll::Ready(outcome) = thread.poll(|context| self.poll_step(context)) {
                return outcome;
            }
            if self.waiting().is_none() {
                return Ok(None);
            }
            if let Err(error) = may_park() {
                self.end();
                return Err(error.with_key(&self.shared().key));
            }
            match self.wait.deadline() {
                None => thread.park(None),
                Some(deadline) if deadline.has_passed() => return self.give_up(),
                Some(deadline) => thread.park(Some(deadline.remaining())),
            }
        }
    }

    /// The shortest way to a lock that nobody is near.
    #[inline(always)]
    fn ask_plainly(&mut self) -> Option<(Arc<Shared>, OwnerToken, FencingNumber)> {
        let shared = self.shared.as_ref()?;
        if self.rest.is_some() || !shared.is_plain || self.generation != fork::generation() {
            return None;
        }
        let request = PlainRequest {
            attempt: OwnerToken::mint(),
            owner: shared.options.stated_owner(),
            site: self.site,
            anchor: self.anchor,
        };
        let number = shared.backend.acquire_plain(&shared.key, &request)?;
        self.asked = true;
        Some((self.shared.take()?, request.attempt, number))
    }

    /// The first contact with the backend in general; `None` when it must wait.
    #[cold]
    #[inline(never)]
    fn ask(&mut self) -> Option<Result<Option<LockGuard>>> {
        self.asked = true;
        if self.generation != fork::generation() {
            return Some(Err(self.forked()));
        }
        if self.wait.deadline().is_some_and(Instant::has_passed) {
            self.wait = Wait::Now;
        }
        let (shared, options) = (self.shared(), self.options());
        if let Err(error) = options.check_for(&*shared.backend) {
            return Some(Err(error.with_key(&shared.key)));
        }
        let request = options.request(self.wait, Some(self.site), self.anchor);
        let (attempt, mode) = (request.attempt, request.mode);
        let abandon = Abandon { shared, attempt };
        let step = shared.backend.acquire(&shared.key, &request);
        match step {
            Step::Ready(Err(_)) => drop(abandon),
            _ => std::mem::forget(abandon),
        }
        match step {
            Step::Ready(outcome) => Some(self.settle(outcome, mode)),
            Step::Waiting(step) => {
                self.rest().waiting = Some(Waiting {
                    attempt,
                    mode,
                    step,
                    timer: None,
                });
                None
            }
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<LockGuard>>> {
        let is_forked = self.generation != fork::generation();
        let Some(waiting) = self.waiting() else {
            return Poll::Pending;
        };
        if is_forked {
            return Poll::Ready(Err(self.forked()));
        }
        let outcome = std::task::ready!(waiting.step.as_mut().poll(context));
        let mode = waiting.mode;
        Poll::Ready(self.settle(outcome, mode))
    }

    /// Turns the backend's answer into a guard, or ends the attempt.
    fn settle(&mut self, outcome: Result<Option<Grant>>, mode: Mode) -> Result<Option<LockGuard>> {
        match outcome {
            Ok(Some(grant)) => Ok(Some(self.guard(grant, mode))),
            Ok(None) => {
                self.forget_wait();
                Ok(None)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    fn guard(&mut self, grant: Grant, mode: Mode) -> LockGuard {
        self.forget_wait();
        let limits = HoldLimits::of(self.options());
        // Invariant: there is one answer, and the lock goes to its guard.
        let Some(shared) = self.shared.take() else {
            unreachable!("an acquire that has answered is asked no more");
        };
        match limits {
            None => LockGuard::new(shared, grant, mode),
            Some(limits) => LockGuard::limited(shared, grant, mode, limits),
        }
    }

    #[cold]
    fn refused(&mut self, error: Error) -> Error {
        self.end();
        match error.key() {
            Some(_) => error,
            None => error.with_key(&self.shared().key),
        }
    }

    fn give_up(&mut self) -> Result<Option<LockGuard>> {
        self.end();
        Ok(None)
    }

    /// The backend has ended the attempt, or granted it.
    fn forget_wait(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.waiting = None;
        }
    }

    /// Ends an attempt that waits: the backend hears of it once, after its future is gone.
    #[cold]
    fn end(&mut self) {
        let rest = self.rest.as_mut();
        let Some(waiting) = rest.and_then(|rest| rest.waiting.take()) else {
            return;
        };
        if self.generation == fork::generation() {
            let (shared, attempt) = (self.shared(), waiting.attempt);
            drop(waiting);
            shared.backend.abandon(&shared.key, attempt);
        } else {
            // Its drop may wait for a mutex whose owner stayed in the parent.
            std::mem::forget(waiting);
        }
    }

    /// For callers to whom contention is an error.
    #[cold]
    pub(crate) fn or_timeout(&self, outcome: Result<Option<LockGuard>>) -> Result<LockGuard> {
        outcome?.ok_or_else(|| self.timeout())
    }

    #[cold]
    fn timeout(&self) -> Error {
        Error::new(ErrorKind::Timeout, "another holder kept it the whole time")
            .with_key(&self.shared().key)
            .with_backend(self.shared().backend.capabilities().name)
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            "the acquire was started before a fork; start it again",
        )
        .with_key(&self.shared().key)
    }
}

impl Drop for Attempt {
    #[inline]
    fn drop(&mut self) {
        if self.rest.is_some() {
            self.end();
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("key", &self.shared.as_ref().map(|shared| &shared.key))
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn news_that_nobody_reads_block_nobody() {
        let (mut reader, tell) = readiness_pipe().unwrap();
        // More than a pipe holds.
        for _ in 0..200_000 {
            tell();
        }
        reader.read_exact(&mut [0]).unwrap();
    }
}
