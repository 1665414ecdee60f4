//! What a case works with: its namespace, clients, and ways to wait for something.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lock_core::{
    AcquireOptions, Capabilities, Grant, InspectQuery, KeyReport, LeaseKind, Lock, LockBackend,
    LockKey, Mode, Request, Scope, Wait,
};

use crate::process::Agent;
use crate::{Failure, Fault, Kit, Outcome};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(3);

/// What a case works with. Everything in it is the case's own, but the store.
#[derive(Debug)]
pub(crate) struct Context {
    kit: Arc<dyn Kit>,
    namespace: String,
    patience: Duration,
    main: Arc<dyn LockBackend>,
    /// All clients that were made, to be closed.
    clients: Mutex<Vec<Arc<dyn LockBackend>>>,
}

impl Context {
    pub(crate) fn new(kit: Arc<dyn Kit>, patience: Duration) -> Outcome<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let main = kit.client()?;
        Ok(Self {
            kit,
            namespace: format!("trial-{}-{number}", std::process::id()),
            patience,
            clients: Mutex::new(vec![Arc::clone(&main)]),
            main,
        })
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.main.capabilities()
    }

    pub(crate) fn kit(&self) -> &Arc<dyn Kit> {
        &self.kit
    }

    /// How long what should happen soon may take, on a loaded machine.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.kit.short_ttl()
    }

    fn has_lease(&self) -> bool {
        self.capabilities().lease != LeaseKind::KernelHeld
    }

    /// Options with a short lease where there are leases.
    pub(crate) fn options(&self) -> AcquireOptions {
        if self.has_lease() {
            AcquireOptions::new().ttl(self.ttl())
        } else {
            AcquireOptions::new()
        }
    }

    /// The lease life that a second process should ask for.
    pub(crate) fn lease_life(&self) -> Option<Duration> {
        self.has_lease().then(|| self.ttl())
    }

    /// How long a crash may go unnoticed: what the lease had left, and slack.
    pub(crate) fn crash_limit(&self) -> Duration {
        self.lease_life().unwrap_or_default() * 2 + self.patience
    }

    pub(crate) fn key(&self, name: &str) -> Outcome<LockKey> {
        Ok(LockKey::new(name)?.in_namespace(&self.namespace)?)
    }

    /// The lock of a name on the case's first client.
    pub(crate) fn lock(&self, name: &str) -> Outcome<Lock> {
        Ok(Lock::new(Arc::clone(&self.main), self.key(name)?))
    }

    /// The same lock on another client.
    pub(crate) fn lock_elsewhere(&self, name: &str) -> Outcome<Lock> {
        Ok(Lock::new(self.client()?, self.key(name)?))
    }

    pub(crate) fn backend(&self) -> &Arc<dyn LockBackend> {
        &self.main
    }

    /// Another client of the same store.
    pub(crate) fn client(&self) -> Outcome<Arc<dyn LockBackend>> {
        let client = self.kit.client()?;
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&client));
        Ok(client)
    }

    /// A second process on the same store.
    pub(crate) fn agent(&self) -> Outcome<Agent> {
        Agent::spawn(&*self.kit)
    }

    pub(crate) async fn inflict(&self, fault: Fault, key: &LockKey) -> Outcome {
        if let Some(reason) = self.kit.lacks(fault) {
            return Err(Failure::new(format!(
                "the kit must offer {fault}: its capabilities expose it to that ({reason})"
            )));
        }
        Ok(self.kit.inflict(fault, key).await?)
    }

    /// A request as `options()` would make it.
    pub(crate) fn request(&self, mode: Mode, wait: Wait) -> Outcome<Request> {
        Ok(self.options().mode(mode).to_request(wait)?)
    }

    /// A grant, straight from the backend. The caller must end it.
    pub(crate) async fn grant(&self, key: &LockKey) -> Outcome<(Request, Grant)> {
        let request = self.request(Mode::Exclusive, Wait::Forever)?;
        let step = self.main.acquire(key, &request);
        match self.soon("a grant", step.finish()).await?? {
            Some(grant) => Ok((request, grant)),
            None => Err(Failure::new("contended answered a request that may wait")),
        }
    }

    /// Fails unless `future` is over within the patience.
    #[track_caller]
    pub(crate) fn soon<F: Future>(
        &self,
        what: &str,
        future: F,
    ) -> impl Future<Output = Outcome<F::Output>> + use<F> {
        let late = Failure::new(format!("{what} did not come within {:?}", self.patience));
        let limit = self.patience;
        async move { tokio::time::timeout(limit, future).await.map_err(|_| late) }
    }

    /// Polls until `condition` holds.
    #[track_caller]
    pub(crate) fn eventually<'a, F>(
        &'a self,
        what: &str,
        condition: F,
    ) -> impl Future<Output = Outcome> + use<'a, F>
    where
        F: AsyncFnMut() -> Outcome<bool>,
    {
        self.within(self.patience, what, condition)
    }

    /// Polls until `condition` holds, at most `limit`.
    #[track_caller]
    pub(crate) fn within<'a, F>(
        &'a self,
        limit: Duration,
        what: &str,
        mut condition: F,
    ) -> impl Future<Output = Outcome> + use<'a, F>
    where
        F: AsyncFnMut() -> Outcome<bool>,
    {
        let late = Failure::new(format!("not seen within {limit:?}: {what}"));
        async move {
            let started = Instant::now();
            while !condition().await? {
                if started.elapsed() > limit {
                    return Err(late);
                }
                // sleep: the interval of a poll, which orders nothing
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        }
    }

    /// What the lock's own client reports about its key.
    pub(crate) async fn report(&self, lock: &Lock) -> Outcome<KeyReport> {
        let query = InspectQuery::key(lock.key().clone());
        let page = lock.backend().inspect(query).await?;
        let report = page.keys.into_iter().next();
        Ok(report.unwrap_or_else(|| KeyReport::idle(lock.key().clone())))
    }

    /// Waits until exactly `count` wait for the lock, as its own client sees it.
    #[track_caller]
    pub(crate) fn waiters<'a>(
        &'a self,
        lock: &Lock,
        count: usize,
    ) -> impl Future<Output = Outcome> + use<'a> {
        let lock = lock.clone();
        self.eventually(
            &format!("{count} waiters for {}", lock.key()),
            async move || Ok(self.report(&lock).await?.waiters.len() == count),
        )
    }

    /// Waits until nobody holds the lock nor waits for it, as its own client sees it.
    #[track_caller]
    pub(crate) fn becomes_idle<'a>(
        &'a self,
        lock: &Lock,
    ) -> impl Future<Output = Outcome> + use<'a> {
        let lock = lock.clone();
        self.eventually(&format!("{} is idle", lock.key()), async move || {
            Ok(self.report(&lock).await?.is_idle())
        })
    }

    /// Waits until another client can take the lock; gives it back at once.
    #[track_caller]
    pub(crate) fn becomes_free<'a>(
        &'a self,
        lock: &Lock,
    ) -> impl Future<Output = Outcome> + use<'a> {
        let lock = lock.clone();
        self.eventually(&format!("{} is free", lock.key()), async move || match lock
            .try_acquire_with(&self.options())
            .await?
        {
            Some(guard) => {
                guard.release().await?;
                Ok(true)
            }
            None => Ok(false),
        })
    }

    /// Nothing is held, waited for or owed in the case's namespace.
    pub(crate) async fn nothing_is_left(&self) -> Outcome {
        // A killed process' lease still has to run out.
        let aging = if self.has_lease() {
            self.ttl() * 3
        } else {
            Duration::ZERO
        };
        let mut left = String::new();
        let empty = self
            .within(self.patience + aging, "an empty namespace", async || {
                let query = InspectQuery::namespace(&self.namespace);
                let page = self.main.inspect(query).await?;
                left = format!("{:?}", page.keys);
                Ok(page.keys.is_empty())
            })
            .await;
        empty.map_err(|failure| {
            Failure::new(format!(
                "{}; left after the case: {left}",
                failure.message()
            ))
        })
    }

    /// Ends the clients, where they are more than handles to one table.
    pub(crate) async fn close(&self) {
        if self.capabilities().scope == Scope::Process {
            return;
        }
        let clients =
            std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            // A failed close leaves leases to run out; what the case found matters more.
            drop(tokio::time::timeout(self.patience, client.close()).await);
        }
    }
}
