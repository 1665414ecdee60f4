//! Refusing the acquire that would close a cycle of waiting owners.

mod graph;
mod place;
mod places;
mod reach;
mod reduction;
mod slot;
mod stalls;
mod state;
mod waiting;
mod watch;
mod watched_key;

use std::borrow::Borrow;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Change, Grant, InspectPage, InspectQuery, LockBackend, LockKey, OwnerToken,
    Released, Renewal, Renewed, Request, Result, Step,
};
pub use graph::WaitGraph;
use place::{Holder, Place};
use watch::Watch;
pub use watched_key::WatchedKey;

/// Finds deadlocks among the owners of this process, before they wait.
///
/// Keeps a [`WaitGraph`] of who holds and who waits. An acquire that would have to wait is looked at
/// first: if it could never be granted, because everyone it waits for waits for it in turn, it fails
/// with [`Deadlock`](crate::ErrorKind::Deadlock), which names each owner, key, mode and acquire site of the
/// cycle ([`Error::cycle`](crate::Error::cycle)). Nothing has been queued or sent then. The owner
/// that is refused still holds what it held: it should release that, and start again. A
/// [transfer](crate::LockGuard::transfer_to) or [attach](crate::Lock::attach) that would close a
/// cycle is refused in the same way.
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
/// - Inferred ones (the running task or thread) are a suspicion, because guards move between tasks,
///   the branches of one `select!` share a task, and the numbers of tasks may come again. A cycle
///   with one of them in it is reported once through `tracing`, and the acquire waits.
/// - An inferred one is proof after all where the code leaves no choice ([`Anchor`](crate::Anchor)):
///   it parks its thread, and holds by [`Lock::while_held`](crate::Lock::while_held), whose guard
///   cannot leave the thread.
/// - An owner with several acquires pending at once goes on when *any* of them is granted, so it
///   counts as stuck only if all of them are.
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
/// Through [`of_key`](Self::of_key), which knows its key's record, a hold that nobody waits for
/// costs a few plain stores and asks nobody; one that others can end as well costs a locked
/// instruction more. Through the wrapper itself the record is looked up first. Only an acquire that
/// has to wait takes the mutex of the graph, and looks from key to holder to what that one waits
/// for: about as long as two hash lookups for each owner in the chain. Shared and permit holders,
/// and those whose grant can be lost, are in a list of their key, behind a mutex.
#[derive(Debug)]
pub struct Deadlock {
    inner: Arc<dyn LockBackend>,
    watch: Watch,
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
        Self {
            inner,
            watch: Watch::new(graph),
        }
    }

    /// The graph, to share it with another wrapper.
    pub fn graph(&self) -> &WaitGraph {
        &self.watch.graph
    }

    /// The same wrapper for users of this key alone: its record need not be looked up each time.
    #[must_use]
    pub fn of_key(&self, key: &LockKey) -> WatchedKey<Arc<dyn LockBackend>, dyn LockBackend> {
        self.of_key_around(key, Arc::clone(&self.inner))
    }

    /// The same around what the backend has for users of this key alone, which may lie in place.
    #[must_use]
    pub fn of_key_around<P, B>(&self, key: &LockKey, inner: P) -> WatchedKey<P, B>
    where
        P: Borrow<B>,
        B: LockBackend + ?Sized,
    {
        WatchedKey::new(self.watch.clone(), key.clone(), inner)
    }
}

#[async_trait]
impl LockBackend for Deadlock {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let place = self.watch.place(key);
        let step = self.watch.acquire(&*self.inner, &place, key, request);
        if !matches!(step, Step::Ready(Ok(Some(_)))) {
            // A wait has a hand on the place of its own.
            self.watch.graph.forget_if_idle(&place);
        }
        step
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.watch.end(key, grant.attempt);
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.watch.end(key, attempt);
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let place = self.watch.place(key);
        self.watch.alter(&*self.inner, &place, key, grant, change)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        self.watch.acquire_many(&*self.inner, wanted)
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
