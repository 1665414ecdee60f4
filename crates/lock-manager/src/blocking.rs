//! For threads without a runtime.
//!
//! A [`Lock`](crate::Lock) itself needs no counterpart: `lock.acquire().wait()`,
//! `lock.try_acquire().wait()` and `guard.release_blocking()` wait on the calling thread.

use std::time::Duration;

use lock_core::{AcquireOptions, GuardSet, LockGuard, Result, block_on};

use crate::ShutdownReport;

/// What saves a thread from writing [`block_on`]: from
/// [`LockManager::blocking`](crate::LockManager::blocking).
///
/// ```
/// # fn main() -> lock_manager::Result<()> {
/// # let manager = lock_manager::LockManager::new(lock_manager::Config::default())?;
/// let guard = manager.blocking().lock_context("orders/42", None)?;
/// drop(guard);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LockManager<'a> {
    manager: &'a crate::LockManager,
}

impl<'a> LockManager<'a> {
    pub(crate) fn new(manager: &'a crate::LockManager) -> Self {
        Self { manager }
    }

    /// Waits for the lock of a name. `None` waits without a limit, zero is one attempt.
    ///
    /// # Errors
    /// As [`LockManager::lock_context`](crate::LockManager::lock_context).
    ///
    /// # Blocking
    /// Parks the thread as long as the limit allows. Do not call it on a thread that runs async
    /// tasks.
    #[track_caller]
    pub fn lock_context(
        self,
        name: impl AsRef<str>,
        limit: impl Into<Option<Duration>>,
    ) -> Result<LockGuard> {
        self.manager.lock_context(name, limit).wait()
    }

    /// Takes all locks of the names, or none.
    ///
    /// # Errors
    /// As [`LockManager::acquire_all`](crate::LockManager::acquire_all).
    ///
    /// # Blocking
    /// As [`lock_context`](Self::lock_context).
    pub fn acquire_all<N: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = N, IntoIter: Send> + Send,
    ) -> Result<GuardSet> {
        block_on(self.manager.acquire_all(names))
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`acquire_all`](Self::acquire_all).
    ///
    /// # Blocking
    /// As [`lock_context`](Self::lock_context).
    pub fn acquire_all_with<N: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = N, IntoIter: Send> + Send,
        options: &AcquireOptions,
    ) -> Result<GuardSet> {
        block_on(self.manager.acquire_all_with(names, options))
    }

    /// Whether anyone holds the lock now. Advisory.
    ///
    /// # Errors
    /// As [`LockManager::is_locked`](crate::LockManager::is_locked).
    ///
    /// # Blocking
    /// As long as the backend takes to answer.
    pub fn is_locked(self, name: impl AsRef<str> + Send) -> Result<bool> {
        block_on(self.manager.is_locked(name))
    }

    /// Stops granting, waits for the guards of this process, and closes the backends.
    ///
    /// # Blocking
    /// Until everything is released, or about as long as `limit`.
    #[must_use]
    pub fn shutdown(self, limit: Duration) -> ShutdownReport {
        block_on(self.manager.shutdown(limit))
    }
}
