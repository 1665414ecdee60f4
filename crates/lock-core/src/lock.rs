//! A named lock, ready to acquire.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::acquire::Attempt;
use crate::{
    Acquire, AcquireOptions, Change, Detached, Error, ErrorKind, Grant, InspectQuery, LockBackend,
    LockGuard, LockKey, Result, Wait,
};

/// A named lock: a key, the backend that implements it, and the options of its acquires.
///
/// Cheap to clone; clones are the same lock. Not re-entrant: a second acquire waits for the first,
/// also in the same task. Dropping it does nothing to guards that are out.
///
/// ```no_run
/// # async fn example(lock: lock_core::Lock) -> lock_core::Result<()> {
/// let guard = lock.acquire().await?;
/// // … what the lock protects …
/// guard.release().await?; // or just drop it
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lock {
    shared: Arc<Shared>,
}

/// What a lock shares with its guards: one allocation for all of them, in the order of use.
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn LockBackend>,
    /// Whether the options say nothing that a [`PlainRequest`](crate::PlainRequest) does not say.
    pub(crate) is_plain: bool,
    pub(crate) fencing_epoch: u32,
    pub(crate) options: AcquireOptions,
    pub(crate) key: LockKey,
}

impl Shared {
    fn new(
        key: LockKey,
        backend: Arc<dyn LockBackend>,
        fencing_epoch: u32,
        options: AcquireOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            backend,
            fencing_epoch,
            is_plain: options.is_plain(),
            options,
        })
    }
}

impl Lock {
    /// The lock of `key` on `backend`, with default options and fencing epoch 0.
    pub fn new(backend: Arc<dyn LockBackend>, key: LockKey) -> Self {
        Self::with_epoch(backend, key, 0)
    }

    /// The same, with fencing tokens of a raised epoch.
    pub fn with_epoch(backend: Arc<dyn LockBackend>, key: LockKey, fencing_epoch: u32) -> Self {
        Self {
            shared: Shared::new(key, backend, fencing_epoch, AcquireOptions::new()),
        }
    }

    /// The same lock with other default options.
    #[must_use]
    pub fn with_options(&self, options: AcquireOptions) -> Self {
        let Shared {
            key,
            backend,
            fencing_epoch,
            ..
        } = &*self.shared;
        let (key, backend, fencing_epoch) = (key.clone(), Arc::clone(backend), *fencing_epoch);
        Self {
            shared: Shared::new(key, backend, fencing_epoch, options),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What is protected.
    pub fn key(&self) -> &LockKey {
        &self.shared.key
    }

    /// What implements the lock.
    pub fn backend(&self) -> &Arc<dyn LockBackend> {
        &self.shared.backend
    }

    /// The options of acquires that bring none of their own.
    pub fn options(&self) -> &AcquireOptions {
        &self.shared.options
    }

    /// Waits until the lock is held, within the wait limit of this lock's options.
    ///
    /// # Errors
    /// `Timeout` when the wait limit passes; otherwise as [`LockBackend::acquire`].
    ///
    /// # Cancel safety
    /// Dropping the future at any point leaves no lock and no queue entry.
    #[track_caller]
    #[inline]
    pub fn acquire(&self) -> Acquire {
        let wait = self.shared.options.wait();
        Acquire::new(self.attempt(wait, Location::caller()))
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and `InvalidConfig` for options that contradict each other.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_with(&self, options: &AcquireOptions) -> Acquire {
        Acquire::new(self.attempt_with(options, options.wait(), Location::caller()))
    }

    /// One attempt, no waiting; `None` when contended.
    ///
    /// # Errors
    /// As [`LockBackend::acquire`]; contention is not one.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn try_acquire(&self) -> TryAcquire {
        TryAcquire(self.attempt(Wait::Now, Location::caller()))
    }

    /// One attempt with other options, whose wait limit is ignored.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn try_acquire_with(&self, options: &AcquireOptions) -> TryAcquire {
        TryAcquire(self.attempt_with(options, Wait::Now, Location::caller()))
    }

    /// Waits at most `limit`; `None` when the lock was not free in time.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn try_acquire_for(&self, limit: Duration) -> TryAcquire {
        TryAcquire(self.attempt(Wait::at_most(limit), Location::caller()))
    }

    #[inline]
    pub(crate) fn attempt(&self, wait: Wait, site: &'static Location<'static>) -> Attempt {
        Attempt::new(Arc::clone(&self.shared), wait, site)
    }

    pub(crate) fn attempt_with(
        &self,
        options: &AcquireOptions,
        wait: Wait,
        site: &'static Location<'static>,
    ) -> Attempt {
        self.attempt(wait, site).with_options(options.clone())
    }

    /// Takes over a lock that was detached from its guard, here or, where the backend reaches that
    /// far, in another process. It belongs to the owner in this lock's options from then on.
    ///
    /// # Errors
    /// `Lost` when it is no longer held, `Unsupported` when the backend cannot take it over here,
    /// `InvalidKey` when it was detached from another key.
    ///
    /// # Cancel safety
    /// A dropped attach leaves the lock detached.
    pub async fn attach(&self, detached: Detached) -> Result<LockGuard> {
        if detached.key != *self.key() {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!(
                    "detached from `{}`; attach it to the lock of that key",
                    detached.key
                ),
            )
            .with_key(self.key()));
        }
        let grant = Grant {
            attempt: detached.attempt,
            fence: detached.fence,
            validity: detached.validity,
        };
        let change = Change::Attach {
            owner: self.options().stated_owner(),
            mode: detached.mode,
        };
        let backend = &self.shared.backend;
        let grant = backend.alter(self.key(), &grant, change).finish().await?;
        let guard = LockGuard::new(Arc::clone(&self.shared), grant, detached.mode);
        Ok(guard.bounded(detached.bounds))
    }

    /// Whether anyone holds the lock now. Advisory: it may be out of date when it returns.
    ///
    /// # Errors
    /// As [`LockBackend::inspect`].
    ///
    /// # Cancel safety
    /// Changes nothing, so it can be dropped at any point.
    pub async fn is_locked(&self) -> Result<bool> {
        let page = self
            .shared
            .backend
            .inspect(InspectQuery::key(self.key().clone()))
            .await?;
        Ok(page.keys.iter().any(|report| !report.holders.is_empty()))
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("key", &self.shared.key)
            .field("backend", &self.shared.backend.capabilities().name)
            .finish_non_exhaustive()
    }
}

/// A pending acquire whose contention is no error: what `try_*` return.
#[derive(Debug)]
#[must_use = "an acquire does nothing unless it is awaited or waited for"]
pub struct TryAcquire(Attempt);

impl TryAcquire {
    /// Waits on the calling thread instead of a task.
    ///
    /// # Errors
    /// As [`Lock::try_acquire`]; `Unsupported` when it would have to wait on the lock I/O thread.
    ///
    /// # Blocking
    /// Parks the thread as long as the wait limit allows. Do not call it on a thread that runs
    /// async tasks.
    pub fn wait(mut self) -> Result<Option<LockGuard>> {
        self.0.wait(|guard| Ok(Some(guard)), |_, outcome| outcome)
    }
}

impl Future for TryAcquire {
    type Output = Result<Option<LockGuard>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll(context, |guard| Ok(Some(guard)), |_, outcome| outcome)
    }
}
