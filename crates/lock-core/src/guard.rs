//! The proof that a lock is held.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::acquire::HoldLimits;
use crate::blocking::{block_on, may_park};
use crate::clock::Instant;
use crate::lock::Shared;
use crate::{
    Change, Detached, Error, ErrorKind, Fence, FencingNumber, FencingToken, Grant, LockKey,
    LossReason, Lost, Mode, OwnerId, OwnerToken, Proof, ReadVersion, Released, Result, Slot, Step,
    Validity, fork, runtime,
};

/// The proof that a lock is held, until it is lost.
///
/// Dropping it releases, also on a panic and when a future that owns it is cancelled. The drop never
/// blocks and reports nothing; [`release`](Self::release) tells whether the lock was ours to the end.
/// `'static` and `Send`: move it into a task, or give it back on another thread.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LockGuard {
    /// `None` once the grant is given back or detached.
    shared: Option<Arc<Shared>>,
    grant: Grant,
    mode: Mode,
    /// The fork generation it was granted in.
    generation: u64,
    bounds: Option<Box<Bounds>>,
}

/// What bounds the hold, if anything does.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    release_after: Option<Instant>,
    max_hold: Option<AbortHandle>,
}

impl LockGuard {
    #[inline]
    pub(crate) fn new(shared: Arc<Shared>, mut grant: Grant, mode: Mode) -> Self {
        if let Some(validity) = &mut grant.validity {
            // The lease may serve other guards, whose signals must not end with this one's.
            *validity = validity.part();
        }
        Self {
            shared: Some(shared),
            grant,
            mode,
            generation: fork::generation(),
            bounds: None,
        }
    }

    /// Of a plain request. Written where the caller wants it: to move a guard costs as much as a lock.
    #[inline(always)]
    pub(crate) fn plain(shared: Arc<Shared>, attempt: OwnerToken, number: FencingNumber) -> Self {
        Self {
            shared: Some(shared),
            grant: Grant {
                attempt,
                fence: Fence::Exclusive(number),
                validity: None,
            },
            mode: Mode::Exclusive,
            generation: fork::generation(),
            bounds: None,
        }
    }

    /// Applies the options that outlive the acquire.
    #[cold]
    pub(crate) fn limited(
        shared: Arc<Shared>,
        grant: Grant,
        mode: Mode,
        limits: HoldLimits,
    ) -> Self {
        let mut guard = Self::new(shared, grant, mode);
        guard.bounds = Some(Box::new(Bounds {
            release_after: limits.at_least.map(|duration| Instant::now() + duration),
            max_hold: limits.max_hold.and_then(|limit| guard.bound_hold(limit)),
        }));
        guard
    }

    /// Takes over what bounded the hold before it was detached.
    pub(crate) fn bounded(mut self, bounds: Option<Box<Bounds>>) -> Self {
        self.bounds = bounds;
        self
    }

    /// Takes the lock away from ourselves after `limit`.
    fn bound_hold(&mut self, limit: Duration) -> Option<AbortHandle> {
        let shared = Arc::clone(self.shared.as_ref()?);
        let validity = self
            .grant
            .validity
            .get_or_insert_with(Validity::unleased)
            .clone();
        let (attempt, until) = (self.grant.attempt, Instant::now() + limit);
        let task = runtime::handle().spawn(async move {
            while !until.has_passed() {
                tokio::time::sleep(until.remaining()).await;
            }
            if validity.lose(LossReason::MaxHold) {
                tracing::warn!(key = %shared.key, ?limit, "held longer than max_hold, given up");
            }
            shared.backend.abandon(&shared.key, attempt);
        });
        Some(task.abort_handle())
    }

    /// What is protected.
    pub fn key(&self) -> &LockKey {
        &self.shared().key
    }

    /// How it is held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The attempt that was granted, as it stands in the holder's record.
    pub fn attempt(&self) -> OwnerToken {
        self.grant.attempt
    }

    /// What the protected resource should check. Only exclusive holders have one.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        match self.grant.fence {
            Fence::Exclusive(number) => {
                Some(FencingToken::new(self.shared().fencing_epoch, number))
            }
            Fence::Shared(_) | Fence::Permit(_) => None,
        }
    }

    /// What the backend's own extensions need to know of this grant; `None` where it has none.
    pub fn proof(&self) -> Option<&Proof> {
        self.grant.validity.as_ref()?.proof()
    }

    /// The version of what a shared holder reads, where the backend knows it.
    pub fn read_version(&self) -> Option<ReadVersion> {
        match self.grant.fence {
            Fence::Shared(version) => version,
            Fence::Exclusive(_) | Fence::Permit(_) => None,
        }
    }

    /// Which permit a permit holder has.
    pub fn slot(&self) -> Option<Slot> {
        match self.grant.fence {
            Fence::Permit(slot) => Some(slot),
            Fence::Exclusive(_) | Fence::Shared(_) => None,
        }
    }

    /// How long the grant is good for unless it is renewed; zero once lost, `None` if it does not
    /// end by itself.
    pub fn remaining(&self) -> Option<Duration> {
        let validity = self.grant.validity.as_ref()?;
        match validity.loss() {
            Some(_) => Some(Duration::ZERO),
            None => validity.deadline().map(Instant::remaining),
        }
    }

    /// Whether the lock is still ours, as far as this process can know: read off the clock now.
    pub fn is_held(&self) -> bool {
        self.loss().is_none()
    }

    /// Why the lock is lost, if it is.
    pub fn loss(&self) -> Option<LossReason> {
        if self.generation != fork::generation() {
            return Some(LossReason::Forked);
        }
        self.grant.validity.as_ref().and_then(Validity::loss)
    }

    /// The loss signal: a future, a blocking wait, or a callback. It outlives the guard and never
    /// fires for a plain release.
    pub fn lost(&self) -> Lost {
        self.grant
            .validity
            .as_ref()
            .map_or_else(Lost::never, Validity::lost)
    }

    /// Runs `future` while the lock is held, and drops it when the lock is lost.
    ///
    /// It can be stopped only where it awaits: code between two await points runs on. For what must
    /// not be written late, show the [`fencing_token`](Self::fencing_token) to the resource.
    ///
    /// # Errors
    /// `Lost`; the future has then been dropped.
    ///
    /// # Cancel safety
    /// As the future's own.
    pub async fn protect<F: Future>(&self, future: F) -> Result<F::Output> {
        let mut lost = self.lost();
        let mut future = pin!(future);
        let outcome = std::future::poll_fn(|context| {
            if let Poll::Ready(reason) = std::pin::Pin::new(&mut lost).poll(context) {
                return Poll::Ready(Err(reason));
            }
            future.as_mut().poll(context).map(Ok)
        })
        .await;
        outcome.map_err(|reason| self.lost_error(reason))
    }

    /// Gives the lock back and says whether it was ours until now.
    ///
    /// # Errors
    /// `Indeterminate` or `Unavailable` when the backend could not be told; it goes on trying.
    ///
    /// # Cancel safety
    /// A dropped release still gives the lock back.
    pub async fn release(mut self) -> Result<Released> {
        match self.release_step() {
            Step::Ready(outcome) => self.settle_release(outcome),
            Step::Waiting(future) => {
                let outcome = future.await;
                self.settle_release(outcome)
            }
        }
    }

    /// [`release`](Self::release) for threads without a runtime.
    ///
    /// # Errors
    /// As [`release`](Self::release); `Unsupported` when it would have to wait on the lock I/O
    /// thread. The lock is given back all the same.
    ///
    /// # Blocking
    /// As long as the backend takes to answer. Do not call it on a thread that runs async tasks.
    pub fn release_blocking(mut self) -> Result<Released> {
        match self.release_step() {
            Step::Ready(outcome) => self.settle_release(outcome),
            Step::Waiting(future) => {
                let outcome = may_park().and_then(|()| block_on(future));
                self.settle_release(outcome)
            }
        }
    }

    fn release_step(&mut self) -> Step<Result<Released>> {
        if self.generation != fork::generation() {
            return Step::Ready(Ok(Released::AlreadyLost));
        }
        if self.defer_release() {
            return Step::Ready(Ok(Released::Released));
        }
        let was_lost = self.loss().is_some();
        let shared = self.shared();
        // A loss that this guard has told of stays one, also when the backend has yet to hear of it.
        shared
            .backend
            .release(&shared.key, &self.grant)
            .map(move |outcome| match outcome {
                Ok(Released::Released) if was_lost => Ok(Released::AlreadyLost),
                outcome => outcome,
            })
    }

    fn settle_release(&mut self, outcome: Result<Released>) -> Result<Released> {
        match outcome {
            Ok(released) => {
                self.disarm();
                Ok(released)
            }
            // Still armed: the drop abandons the attempt, and the backend goes on trying.
            Err(error) => Err(error.with_key(self.key())),
        }
    }

    /// Keeps the lock until `hold_at_least` is over. Returns whether it must be kept.
    fn defer_release(&mut self) -> bool {
        let Some(until) = self.bounds.as_ref().and_then(|bounds| bounds.release_after) else {
            return false;
        };
        if until.has_passed() || self.loss().is_some() {
            return false;
        }
        let Some(shared) = self.shared.clone() else {
            return false;
        };
        let attempt = self.grant.attempt;
        runtime::handle().spawn(async move {
            while !until.has_passed() {
                tokio::time::sleep(until.remaining()).await;
            }
            shared.backend.abandon(&shared.key, attempt);
        });
        self.disarm();
        true
    }

    /// Turns an exclusive hold into a shared one; no other exclusive holder comes in between.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot do it atomically, and `ModeConflict` when somebody
    /// waits for a mode that shared ones never take turns with: the lock is then held as before.
    /// `Lost`, and `InvalidConfig` unless the mode is exclusive.
    ///
    /// # Cancel safety
    /// A dropped downgrade leaves the lock held, and the guard shared: the weaker of the two.
    pub async fn downgrade(&mut self) -> Result<()> {
        if self.mode != Mode::Exclusive {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "held as {}; only an exclusive hold can be downgraded",
                    self.mode
                ),
            )
            .with_key(self.key()));
        }
        let before = self.grant.clone();
        let step = self.alter(Change::Downgrade);
        self.mode = Mode::Shared;
        self.grant.fence = Fence::Shared(None);
        match step.finish().await {
            Ok(grant) => self.adopt(grant),
            Err(error) => {
                if error.changed_nothing() {
                    self.mode = Mode::Exclusive;
                    self.grant = before;
                }
                return Err(error.with_key(self.key()));
            }
        }
        Ok(())
    }

    /// Makes another owner answer for the lock, in deadlock detection and in records.
    ///
    /// # Errors
    /// `Lost`, or as the backend.
    ///
    /// # Cancel safety
    /// The lock stays held; whether the transfer was made is open.
    pub async fn transfer_to(&mut self, owner: OwnerId) -> Result<()> {
        let step = self.alter(Change::Transfer(owner));
        let grant = step
            .finish()
            .await
            .map_err(|error| error.with_key(self.key()))?;
        self.adopt(grant);
        Ok(())
    }

    /// Separates the lock from this guard, to be attached again elsewhere by
    /// [`Lock::attach`](crate::Lock::attach).
    ///
    /// Until then nobody renews it: attach it before its lease ends. A detached lock that is
    /// forgotten is bounded by its lease, by `max_hold`, or by the life of the process.
    ///
    /// # Errors
    /// `Lost`, or as the backend.
    ///
    /// # Cancel safety
    /// A dropped detach releases the lock.
    pub async fn detach(mut self) -> Result<Detached> {
        let grant = self.alter(Change::Detach).finish().await;
        let grant = grant.map_err(|error| error.with_key(self.key()))?;
        let detached = Detached {
            key: self.key().clone(),
            attempt: grant.attempt,
            mode: self.mode,
            fence: grant.fence,
            validity: self.grant.validity.clone(),
            bounds: self.bounds.take(),
        };
        self.shared = None;
        Ok(detached)
    }

    /// Forgets the guard without releasing: the lock then ends with its lease, its `max_hold`, or
    /// the process. Renewal stops.
    pub fn leak(mut self) {
        if !self.is_held() {
            // Nothing is left to hold; the drop clears up.
            return;
        }
        if let Step::Waiting(future) = self.alter(Change::Detach) {
            runtime::handle().spawn(future);
        }
        self.bounds = None;
        self.shared = None;
    }

    fn alter(&self, change: Change) -> Step<Result<Grant>> {
        if let Some(reason) = self.loss() {
            return Step::Ready(Err(self.lost_error(reason)));
        }
        let shared = self.shared();
        shared.backend.alter(&shared.key, &self.grant, change)
    }

    /// Takes over a changed grant, with the signal that is out already.
    fn adopt(&mut self, grant: Grant) {
        let signal = self.grant.validity.take();
        self.grant = Grant {
            validity: signal.or(grant.validity),
            ..grant
        };
    }

    fn lost_error(&self, reason: LossReason) -> Error {
        Error::new(ErrorKind::Lost, reason.to_string()).with_key(self.key())
    }

    fn shared(&self) -> &Arc<Shared> {
        // Invariant: `shared` is taken only by methods that consume the guard.
        self.shared
            .as_ref()
            .unwrap_or_else(|| unreachable!("a guard in use has its lock"))
    }

    fn disarm(&mut self) {
        self.end_signal();
        self.shared = None;
    }

    /// What happens to the lease from now on is no loss.
    fn end_signal(&self) {
        if let Some(validity) = &self.grant.validity {
            validity.end();
        }
    }
}

impl Drop for LockGuard {
    #[inline]
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            // The lock stays with the parent.
            std::mem::forget(self.shared.take());
            std::mem::forget(self.grant.validity.take());
            // Aborting would lock the queue of a runtime whose thread stayed there too.
            std::mem::forget(self.bounds.take());
            return;
        }
        if self.bounds.is_some() || self.grant.validity.is_some() {
            self.give_back_bounded();
        } else if let Some(shared) = self.shared.take() {
            shared.backend.abandon(&shared.key, self.grant.attempt);
        }
    }
}

impl LockGuard {
    #[cold]
    fn give_back_bounded(&mut self) {
        if self.shared.is_some()
            && !self.defer_release()
            && let Some(shared) = self.shared.take()
        {
            self.end_signal();
            shared.backend.abandon(&shared.key, self.grant.attempt);
        }
        if let Some(task) = self.bounds.take().and_then(|bounds| bounds.max_hold) {
            task.abort();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", &self.shared.as_ref().map(|shared| &shared.key))
            .field("mode", &self.mode)
            .field("fence", &self.grant.fence)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
