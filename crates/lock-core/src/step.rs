//! An answer now, or a future only when it must wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A boxed future that owns everything it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// The outcome of a backend call: an answer now, or a future for the case that must wait.
///
/// The uncontended path thereby costs no allocation. The future is `'static`: whoever returns one
/// clones the handles it needs, and callers may keep it, send it, or drop it unpolled.
#[must_use = "a step that waits does nothing unless it is awaited"]
pub enum Step<T> {
    /// The answer.
    Ready(T),
    /// Must wait. Lazy: nothing is queued or sent before the first poll.
    Waiting(BoxFuture<T>),
}

impl<T: Send + 'static> Step<T> {
    /// A step that must wait for `future`.
    pub fn wait(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Waiting(Box::pin(future))
    }

    /// Applies `change` to the answer, now or when it comes.
    pub fn map<U: 'static>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Step<U> {
        match self {
            Self::Ready(answer) => Step::Ready(change(answer)),
            Self::Waiting(future) => Step::Waiting(Box::pin(async move { change(future.await) })),
        }
    }

    /// The answer, waiting for it if it must be.
    pub async fn finish(self) -> T {
        match self {
            Self::Ready(answer) => answer,
            Self::Waiting(future) => future.await,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Step<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(answer) => f.debug_tuple("Ready").field(answer).finish(),
            Self::Waiting(_) => f.write_str("Waiting"),
        }
    }
}
