//! A pending acquire by name.

use std::pin::Pin;
use std::task::{Context, Poll};

use lock_core::{Acquire, LockGuard, Result};

/// A pending acquire by name, from [`LockManager::lock_context`](crate::LockManager::lock_context).
///
/// # Cancel safety
/// Dropping it at any point leaves no lock and no queue entry.
#[derive(Debug)]
#[must_use = "an acquire does nothing unless it is awaited or waited for"]
pub struct LockContext(Result<Acquire>);

impl LockContext {
    pub(super) fn new(acquire: Result<Acquire>) -> Self {
        Self(acquire)
    }

    /// Waits on the calling thread instead of a task.
    ///
    /// # Errors
    /// As [`LockManager::lock_context`](crate::LockManager::lock_context).
    ///
    /// # Blocking
    /// Parks the thread as long as the limit allows. Do not call it on a thread that runs async
    /// tasks.
    pub fn wait(self) -> Result<LockGuard> {
        self.0?.wait()
    }
}

impl Future for LockContext {
    type Output = Result<LockGuard>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(acquire) => Pin::new(acquire).poll(context),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}
