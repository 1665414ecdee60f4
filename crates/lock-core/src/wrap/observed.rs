//! Reporting what happens to locks.

mod counters;
mod event;
mod ledger;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Change, Grant, InspectPage, InspectQuery, LockBackend, LockKey, OwnerToken,
    Released, Renewal, Renewed, Request, Result, Step,
};
pub use counters::{Counters, CountersSnapshot};
pub use event::{Event, EventKind, Observer};
use ledger::{Asked, Ledger};

/// Tells an [`Observer`] what happens to the locks of a backend.
///
/// ```
/// # use std::sync::Arc;
/// # use lock_core::{Lock, LockBackend, LockKey};
/// use lock_core::wrap::{Counters, Observed};
///
/// # fn example(backend: Arc<dyn LockBackend>) -> lock_core::Result<()> {
/// let counters = Arc::new(Counters::new());
/// let backend = Arc::new(Observed::new(backend, counters.clone()));
/// let guard = Lock::new(backend, LockKey::new("report")?).acquire().wait()?;
/// assert_eq!(counters.snapshot().holders, 1);
/// drop(guard);
/// assert_eq!(counters.snapshot().released, 1);
/// # Ok(())
/// # }
/// ```
///
/// The observer runs on the thread of the operation, under no lock, and after the backend has been
/// told: a slow one slows its own caller, never the hand-over to another. A panic in it is reported
/// through `tracing` and stops nothing. A loss is reported from a thread of its own.
///
/// # What it cannot know
/// - Wait limits are enforced above every wrapper, so a timeout is an
///   [`Abandoned`](EventKind::Abandoned), just like a cancelled acquire.
/// - A guard that was dropped and one that was released look the same:
///   [`Released`](EventKind::Released); so does, on a backend whose grants cannot be lost, one that
///   outlived its `max_hold`.
/// - A lease that ran out is noticed when somebody looks at it; the keepalive does, and so does the
///   end of the hold.
///
/// # Cost
/// One mutex around a table of the attempts that wait or hold, taken once when an uncontended grant
/// comes and once when it goes; a reading of the clock each time; and for grants that can be lost, one
/// small allocation.
pub struct Observed {
    inner: Arc<dyn LockBackend>,
    ledger: Arc<Ledger>,
}

impl Observed {
    /// Reports on `inner` to `observer`.
    #[must_use]
    pub fn new(inner: Arc<dyn LockBackend>, observer: Arc<dyn Observer>) -> Self {
        Self {
            inner,
            ledger: Arc::new(Ledger::new(observer)),
        }
    }

    fn ask(&self, key: &LockKey, request: &Request) -> Asked {
        let asked = Asked {
            key: key.clone(),
            mode: request.mode,
            attempt: request.attempt,
        };
        self.ledger.attempted(&asked);
        asked
    }
}

#[async_trait]
impl LockBackend for Observed {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let asked = self.ask(key, request);
        let asking = self.ledger.asking(std::slice::from_ref(&asked));
        let step = self.inner.acquire(key, request);
        asking.answered();
        match step {
            Step::Ready(outcome) => {
                self.ledger.settle(&asked, None, &outcome);
                Step::Ready(outcome)
            }
            Step::Waiting(future) => {
                self.ledger.wait(&asked);
                let ledger = Arc::clone(&self.ledger);
                Step::wait(async move {
                    let outcome = future.await;
                    if let Some(waited) = ledger.wait_over(asked.attempt) {
                        ledger.settle(&asked, Some(waited), &outcome);
                    }
                    outcome
                })
            }
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let (ledger, attempt) = (Arc::clone(&self.ledger), grant.attempt);
        self.inner.release(key, grant).map(move |outcome| {
            // An error leaves the end to `abandon`, which the caller owes us.
            if let Ok(released) = outcome {
                ledger.end(attempt, Some(released));
            }
            outcome
        })
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        // Taken out first, or a new grant of the same attempt could be mistaken for this one.
        let ended = self.ledger.take(attempt);
        self.inner.abandon(key, attempt);
        if let Some(ended) = ended {
            self.ledger.report_end(attempt, ended, None);
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (ledger, key_, attempt) = (Arc::clone(&self.ledger), key.clone(), grant.attempt);
        self.inner.alter(key, grant, change).map(move |outcome| {
            if let Ok(grant) = &outcome {
                match change {
                    Change::Downgrade => ledger.downgraded(attempt),
                    Change::Detach => ledger.detached(attempt),
                    Change::Attach { mode, .. } => ledger.attached(&key_, mode, grant),
                    Change::Transfer(_) => {}
                }
            }
            outcome
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let asked: Vec<_> = wanted.iter().map(|(key, it)| self.ask(key, it)).collect();
        let asking = self.ledger.asking(&asked);
        let step = self.inner.acquire_many(wanted);
        asking.answered();
        match step {
            Step::Ready(outcome) => {
                for (at, asked) in asked.iter().enumerate() {
                    self.ledger.settle(asked, None, &one_of(&outcome, at));
                }
                Step::Ready(outcome)
            }
            Step::Waiting(future) => {
                for asked in &asked {
                    self.ledger.wait(asked);
                }
                let ledger = Arc::clone(&self.ledger);
                Step::wait(async move {
                    let outcome = future.await;
                    for (at, asked) in asked.iter().enumerate() {
                        if let Some(waited) = ledger.wait_over(asked.attempt) {
                            ledger.settle(asked, Some(waited), &one_of(&outcome, at));
                        }
                    }
                    outcome
                })
            }
        }
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        // The holders hear of it through their loss signal, and so does the ledger.
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// The outcome for one of several keys.
fn one_of(outcome: &Result<Option<Vec<Grant>>>, at: usize) -> Result<Option<Grant>> {
    match outcome {
        Ok(grants) => Ok(grants.as_ref().and_then(|grants| grants.get(at)).cloned()),
        Err(error) => Err(error.clone()),
    }
}
