//! Letting an owner acquire what it holds already.

mod holds;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Change, DeadlockEdge, Error, Grant, InspectPage, InspectQuery, LockBackend,
    LockKey, OwnerToken, Reentry, Released, Renewal, Renewed, Request, Result, Step,
};
use holds::{Ended, Holds, Sharing};

/// Counts what one owner acquires again while it holds it, where the acquire
/// [asks for that](crate::AcquireOptions::reentrant).
///
/// The first acquire holds the lock at the backend; further ones of the same stated owner share that
/// hold, its fencing number and its loss, and it is given back when the last of their guards is.
/// An exclusive hold serves shared acquires too. A shared one serves no exclusive acquire: that
/// would be an upgrade, which waits for itself, and fails with `Deadlock`. Permits are never shared.
///
/// ```
/// # use std::sync::Arc;
/// # use lock_core::{AcquireOptions, Lock, LockBackend, LockKey, OwnerId};
/// use lock_core::wrap::Reentrant;
///
/// # fn example(backend: Arc<dyn LockBackend>) -> lock_core::Result<()> {
/// let lock = Lock::new(Arc::new(Reentrant::new(backend)), LockKey::new("ledger")?);
/// let job = AcquireOptions::new().owner(OwnerId::new()).reentrant();
///
/// let outer = lock.acquire_with(&job).wait()?;
/// let inner = lock.acquire_with(&job).wait()?;
/// assert_eq!(outer.fencing_token(), inner.fencing_token());
/// drop(outer); // still held
/// drop(inner);
/// # Ok(())
/// # }
/// ```
///
/// Reentry is never ambient: not by thread, not by task, and not without being asked for, because
/// whoever calls must know that it works in the middle of its own half-done change.
///
/// Stands outside of [`Deadlock`](super::Deadlock). A hold that several guards share cannot be downgraded, transferred or
/// detached.
#[derive(Clone, Debug)]
pub struct Reentrant {
    inner: Arc<dyn LockBackend>,
    holds: Holds,
}

impl Reentrant {
    /// Counts around `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn LockBackend>) -> Self {
        Self {
            inner,
            holds: Holds::default(),
        }
    }

    /// The same counts around another view of the same backend.
    #[must_use]
    pub fn around(&self, inner: Arc<dyn LockBackend>) -> Self {
        Self {
            inner,
            holds: self.holds.clone(),
        }
    }

    fn settle(&self, key: &LockKey, request: &Request, outcome: &Result<Option<Grant>>) {
        if let Ok(Some(grant)) = outcome {
            self.holds.begin(key, request, grant);
        }
    }
}

#[async_trait]
impl LockBackend for Reentrant {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reentry: true,
            ..self.inner.capabilities()
        }
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if request.reentry == Reentry::Refused {
            return self.inner.acquire(key, request);
        }
        match self.holds.share(key, request) {
            Sharing::Shared(grant) => return Step::Ready(Ok(Some(grant))),
            Sharing::Upgrade(owner) => {
                let site = request.site.map(|site| site.to_string().into());
                let edge = DeadlockEdge::new(owner, key.clone(), request.mode, site);
                let name = self.inner.capabilities().name;
                let error = Error::deadlock(vec![edge]).with_key(key);
                return Step::Ready(Err(error.with_backend(name)));
            }
            Sharing::Nothing => {}
        }
        let (this, key, request) = (self.clone(), key.clone(), request.clone());
        self.inner.acquire(&key, &request).map(move |outcome| {
            this.settle(&key, &request, &outcome);
            outcome
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        match self.holds.end(grant.attempt) {
            Ended::Unknown => self.inner.release(key, grant),
            Ended::Shared => Step::Ready(Ok(Released::Released)),
            Ended::Last(last) => {
                let (holds, attempt) = (self.holds.clone(), grant.attempt);
                self.inner.release(key, &last).map(move |outcome| {
                    // After an error the caller abandons its attempt, which has to reach the hold.
                    if outcome.is_ok() {
                        holds.forget(attempt);
                    }
                    outcome
                })
            }
        }
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        match self.holds.end(attempt) {
            Ended::Unknown => self.inner.abandon(key, attempt),
            Ended::Shared => {}
            Ended::Last(last) => {
                self.holds.forget(attempt);
                self.inner.abandon(key, last.attempt);
            }
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let held = match self.holds.only(grant.attempt) {
            Ok(None) => return self.inner.alter(key, grant, change),
            Ok(Some(held)) => held,
            Err(guards) => {
                let name = self.inner.capabilities().name;
                let what = format!("a change to what {guards} guards share; drop the others first");
                return Step::Ready(Err(Error::unsupported(name, what).with_key(key)));
            }
        };
        let (holds, attempt) = (self.holds.clone(), grant.attempt);
        let step = self.inner.alter(key, &held, change);
        step.map(move |outcome| Ok(holds.altered(attempt, outcome?, change)))
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let reenters = |(_, request): &&(LockKey, Request)| request.reentry == Reentry::Counted;
        let counted: Vec<_> = wanted.iter().filter(reenters).cloned().collect();
        let step = self.inner.acquire_many(wanted);
        if counted.is_empty() {
            return step;
        }
        let this = self.clone();
        step.map(move |outcome| {
            for grant in outcome.iter().flatten().flatten() {
                let asked = counted.iter();
                let mut asked = asked.filter(|(_, request)| request.attempt == grant.attempt);
                if let Some((key, request)) = asked.next() {
                    this.holds.begin(key, request, grant);
                }
            }
            outcome
        })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
