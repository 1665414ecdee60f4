//! Ending a manager in good order.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Error, ErrorKind, LockKey, runtime};

use crate::manager::LockManager;

/// What a shutdown could not end.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Locks whose guards were still out at the deadline, in order of their keys. They stay with
    /// their guards; where there is a lease, it ends with the process at the latest.
    pub still_held: Vec<StillHeld>,
    /// Backends that did not close cleanly.
    pub not_closed: Vec<Error>,
}

/// A lock that is held after a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillHeld {
    /// What is protected.
    pub key: LockKey,
    /// The name of its backend.
    pub backend: String,
    /// How many guards of this process hold it.
    pub guards: usize,
}

impl ShutdownReport {
    /// Whether everything was released and closed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.still_held.is_empty() && self.not_closed.is_empty()
    }
}

/// Closing gets at least this long, also when the guards have used up the time.
const CLOSE_AT_LEAST: Duration = Duration::from_millis(500);

impl LockManager {
    /// Stops granting, waits for the guards of this process, and closes the backends.
    ///
    /// New acquires and those that wait fail with `Closed` at once. Guards have until `limit` to be
    /// released. Then the backends are closed, in what time is left but at least half a second; in-process
    /// locks are shared with other managers and stay open. Calling it again does it again.
    ///
    /// Ready for SIGTERM:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(manager: lock_manager::LockManager) -> std::io::Result<()> {
    /// # #[cfg(unix)] {
    /// use tokio::signal::unix::{SignalKind, signal};
    ///
    /// signal(SignalKind::terminate())?.recv().await;
    /// let report = manager.shutdown(Duration::from_secs(20)).await;
    /// for held in &report.still_held {
    ///     eprintln!("{} is still held by {} guards", held.key, held.guards);
    /// }
    /// # } Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// When dropped, the manager grants nothing more, and its backends are open or closed.
    pub async fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let deadline = Instant::now() + limit;
        let gate = &self.home().gate;
        gate.close();
        for name in self.registry().all() {
            name.refuse_waiters();
        }
        let released = gate.wait_until(|| self.still_held().is_empty());
        // Once all were released, whatever is noted later is on its way to be refused.
        let still_held = match within(limit, released).await {
            Some(()) => Vec::new(),
            None => self.still_held(),
        };
        let rest = deadline.remaining().max(CLOSE_AT_LEAST);
        let not_closed = within(rest, self.close_backends()).await;
        let report = ShutdownReport {
            still_held,
            not_closed: not_closed.unwrap_or_else(|| {
                let message = "closing the backends took longer than the shutdown allows";
                vec![Error::new(ErrorKind::Indeterminate, message)]
            }),
        };
        if !report.is_clean() {
            tracing::warn!(
                ?report,
                "the lock manager was shut down with something left"
            );
        }
        report
    }

    fn still_held(&self) -> Vec<StillHeld> {
        let names = self.registry().all().into_iter();
        let mut held: Vec<StillHeld> = names
            .map(|name| StillHeld {
                key: name.key().clone(),
                backend: name.backend_name().to_string(),
                guards: name.count().0,
            })
            .filter(|name| name.guards > 0)
            .collect();
        held.sort_by(|a, b| a.key.cmp(&b.key));
        held
    }

    async fn close_backends(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for (_, built) in self.built().filter(|(_, built)| built.owned) {
            if let Err(error) = built.backend.close().await {
                errors.push(error.with_backend(built.capabilities.name));
            }
        }
        errors
    }
}

/// `future`'s output, or `None` when `limit` has passed first.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(runtime::sleep(limit));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}
