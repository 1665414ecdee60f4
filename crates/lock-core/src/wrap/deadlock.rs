//! Refusing the acquire that would close a cycle of waiting owners.

mod graph;
mod reduction;
mod state;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::{
    Capabilities, Change, Grant, InspectPage, InspectQuery, LockBackend, LockKey, Mode, OwnerId,
    OwnerToken, Released, Renewal, Renewed, Request, Result, Step,
};
pub use graph::WaitGraph;
use state::{Holder, Place};
use waiting::WatchedWait;

/// Finds deadlocks among the owners of this process, before they wait.
///
/// Keeps a [`WaitGraph`] of who holds and who waits. An acquire that would have to wait is looked at
/// first: if it could never be granted, because everyone it waits for waits for it in turn, it fails
/// with [`Deadlock`](crate::ErrorKind::Deadlock), which names each owner, key, mode and acquire site of the
/// cycle ([`Error::cycle`](crate::Error::cycle)). Nothing has been queued or sent then. The owner
/// that is refused still holds what it held: it should release that, and start again.
///
/// ```
/// # use std::sync::Arc;
/// # use lock_core::{AcquireOptions, ErrorKind, Lock, LockBackend, LockKey, Mode, OwnerId};
/// use lock_core::wrap::Deadlock;
///
/// # fn example(backend: Arc<dyn LockBackend>) -> lock_core::Result<()> {
/// let lock = Lock::new(Arc::new(Deadlock::new(backend)), LockKey::new("ledger")?);
/// let job = AcquireOptions::new().owner(OwnerId::new());
///
/// let _reading = lock.acquire_with(&job.clone().mode(Mode::Shared)).wait()?;
/// // An upgrade while holding would wait for itself.
/// let refused = lock.acquire_with(&job).wait().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Deadlock);
/// # Ok(())
/// # }
/// ```
///
/// # What is waited for
/// Exclusive and shared waiters wait for *all* holders in their way and for the incompatible waiters
/// queued before them. A permit waiter waits until *enough* holders have released: it is stuck only
/// if too few of them can. Owners that nothing is known of (other processes, lost grants, detached
/// locks) are taken to go on and release.
///
/// # Owners
/// - Explicit owners ([`AcquireOptions::owner`](crate::AcquireOptions::owner)) are proof: a cycle
///   of them is an error.
/// - Inferred ones (the running task or thread) are a suspicion, because guards move between tasks
///   and the branches of one `select!` share a task. A cycle with one of them in it is reported
///   once through `tracing`, and the acquire waits.
/// - An owner with several acquires pending at once goes on when *any* of them is granted, so it
///   counts as stuck only if all of them are; a deadlock is then found by the next acquire that
///   has to wait, not when one of the pending ones ends.
///
/// # Limits
/// - A wait with a deadline counts like any other: it would end, but only by a timeout, and the
///   others wait that long for nothing. Once the deadline has passed it no longer counts.
/// - Two acquires that enter one queue at the same instant on two threads are not ordered here,
///   only the backend knows: a cycle through that place in the queue alone is not found. Cycles
///   through holders always are, and when several acquires race to close one, one of them fails.
/// - That a waiter bypassed 64 times goes to the front is not counted on to resolve a deadlock.
/// - Several keys in one atomic step do not wait for each other, so only their grants are recorded.
/// - Cycles through other processes are not visible here.
///
/// # Cost
/// One mutex of the graph, taken twice around each hold (to record it and to forget it) and three
/// times around a wait, never while the backend is called. An acquire that has to wait is searched for
/// cycles only if somebody waits for a key that its owner holds; the search is linear in what can
/// be reached from it. Measured on one busy thread: 350 to 550 ns for each hold, and half to one
/// microsecond for each owner that a search reaches.
#[derive(Debug)]
pub struct Deadlock {
    inner: Arc<dyn LockBackend>,
    graph: WaitGraph,
    /// Tells apart equal keys of backends that share a graph.
    backend: u64,
}

impl Deadlock {
    /// Watches `inner` with a graph of its own. Wrap each backend once: two wrappers around one
    /// backend would take its keys for different ones.
    #[must_use]
    pub fn new(inner: Arc<dyn LockBackend>) -> Self {
        Self::sharing(inner, WaitGraph::new())
    }

    /// Watches `inner` with a graph that other wrappers use too, so that cycles across their
    /// backends are found.
    #[must_use]
    pub fn sharing(inner: Arc<dyn LockBackend>, graph: WaitGraph) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            inner,
            graph,
            backend: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The graph, to share it with another wrapper.
    pub fn graph(&self) -> &WaitGraph {
        &self.graph
    }

    fn place(&self, key: &LockKey) -> Place {
        Place {
            backend: self.backend,
            key: key.clone(),
        }
    }

    fn downgrade(&self, key: &LockKey, grant: &Grant) -> Step<Result<Grant>> {
        let (graph, place, attempt) = (self.graph.clone(), self.place(key), grant.attempt);
        // Before the backend lets shared ones in: they must not be seen behind an exclusive holder.
        graph.change_mode(&place, attempt, Mode::Shared);
        let step = self.inner.alter(key, grant, Change::Downgrade);
        step.map(move |outcome| {
            if matches!(&outcome, Err(error) if error.changed_nothing()) {
                graph.change_mode(&place, attempt, Mode::Exclusive);
            }
            outcome
        })
    }
}

#[async_trait]
impl LockBackend for Deadlock {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let owner = owner_of(request);
        match self.inner.acquire(key, request) {
            Step::Ready(outcome) => {
                if let Ok(Some(grant)) = &outcome {
                    let holder = Holder::new(owner, request.mode, grant);
                    self.graph.hold(self.place(key), holder);
                }
                Step::Ready(outcome)
            }
            Step::Waiting(future) => Step::Waiting(Box::pin(WatchedWait::new(
                self.graph.clone(),
                self.place(key),
                owner,
                request.clone(),
                self.inner.capabilities().name,
                future,
            ))),
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        // Invariant: a holder is forgotten before the backend lets the next one in, so that the
        // graph never shows a holder that the backend does not have.
        self.graph.leave(&self.place(key), grant.attempt);
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.graph.leave(&self.place(key), attempt);
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (graph, place) = (self.graph.clone(), self.place(key));
        let attempt = grant.attempt;
        match change {
            Change::Downgrade => self.downgrade(key, grant),
            Change::Transfer(owner) => self.inner.alter(key, grant, change).map(move |outcome| {
                if outcome.is_ok() {
                    graph.change_owner(&place, attempt, owner);
                }
                outcome
            }),
            Change::Detach => {
                graph.leave(&place, attempt);
                self.inner.alter(key, grant, change)
            }
            Change::Attach { owner, mode } => {
                let owner = owner.unwrap_or_else(OwnerId::current);
                self.inner.alter(key, grant, change).map(move |outcome| {
                    if let Ok(grant) = &outcome {
                        graph.hold(place, Holder::new(owner, mode, grant));
                    }
                    outcome
                })
            }
        }
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let graph = self.graph.clone();
        let asked: Vec<_> = wanted
            .iter()
            .map(|(key, request)| (self.place(key), owner_of(request), request.mode))
            .collect();
        self.inner.acquire_many(wanted).map(move |outcome| {
            if let Ok(Some(grants)) = &outcome {
                for ((place, owner, mode), grant) in asked.into_iter().zip(grants) {
                    graph.hold(place, Holder::new(owner, mode, grant));
                }
            }
            outcome
        })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        // The broken holders' loss signals tell the graph.
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

fn owner_of(request: &Request) -> OwnerId {
    request.owner.unwrap_or_else(OwnerId::current)
}
