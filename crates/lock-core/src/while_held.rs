//! Holding a lock for the length of a call.

use std::panic::Location;

use crate::acquire::Attempt;
use crate::{AcquireOptions, Anchor, Lock, LockGuard, Result};

impl Lock {
    /// Holds the lock while `work` runs on this thread, and releases it then, also if `work` panics.
    ///
    /// The guard is only lent, so it cannot leave the thread. That makes the thread a proven owner:
    /// [deadlock detection](crate::wrap::Deadlock) refuses a cycle of such calls without anyone
    /// having stated an owner.
    ///
    /// ```
    /// # fn example(lock: lock_core::Lock) -> lock_core::Result<()> {
    /// let sum = lock.while_held(|_guard| 1 + 1)?;
    /// # assert_eq!(sum, 2); Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire). How the release went is not told.
    ///
    /// # Blocking
    /// Parks the thread as long as the wait limit allows. Do not call it on a thread that runs
    /// async tasks.
    #[track_caller]
    pub fn while_held<T>(&self, work: impl FnOnce(&LockGuard) -> T) -> Result<T> {
        let attempt = self.attempt(self.options().wait(), Location::caller());
        run(attempt, work)
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// As [`while_held`](Self::while_held), and `InvalidConfig` for options that contradict each
    /// other.
    ///
    /// # Blocking
    /// As [`while_held`](Self::while_held).
    #[track_caller]
    pub fn while_held_with<T>(
        &self,
        options: &AcquireOptions,
        work: impl FnOnce(&LockGuard) -> T,
    ) -> Result<T> {
        let attempt = self.attempt_with(options, options.wait(), Location::caller());
        run(attempt, work)
    }
}

fn run<T>(mut attempt: Attempt, work: impl FnOnce(&LockGuard) -> T) -> Result<T> {
    attempt.anchor(Anchor::Hold);
    let guard = attempt.wait(Ok, Attempt::or_timeout)?;
    Ok(work(&guard))
}
