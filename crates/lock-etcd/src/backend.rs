//! The contract: requests in, steps out.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::{
    Capabilities, Change, DetachReach, Error, FencingLife, Grant, Handoff, InspectPage,
    InspectQuery, LeaseKind, LockBackend, LockKey, Ordering, OwnerToken, Released, Renewal,
    Renewed, Request, Result, Scope, Step, runtime,
};

use crate::alter::Attached;
use crate::client::{Asking, Client, Stage};
use crate::cluster::Cluster;
use crate::config::EtcdConfig;
use crate::error::{NAME, Reason};
use crate::queue::Attempt;
use crate::{alter, inspect, leave, many};

/// Locks on an etcd cluster. Clones are the same client: one connection, one lease.
///
/// The lease is renewed here, also for those who wait, so no [`Keepalive`](lock_core::Keepalive) goes
/// around it.
#[derive(Clone)]
pub struct EtcdBackend {
    shared: Arc<Shared>,
}

struct Shared {
    config: EtcdConfig,
    client: ForkLocal<Arc<Client>>,
}

impl EtcdBackend {
    /// A client of the cluster in `config`. It connects on first use.
    ///
    /// # Errors
    /// `InvalidConfig` for settings that cannot be used, certificates that cannot be read among
    /// them.
    pub fn open(config: EtcdConfig) -> Result<Self> {
        // What is wrong is told now; the connections are each process's own.
        Cluster::new(&config)?;
        let client = ForkLocal::new();
        Ok(Self {
            shared: Arc::new(Shared { config, client }),
        })
    }

    fn check(request: &Request) -> Result<()> {
        if let Some(ttl) = request.ttl
            && !(EtcdConfig::MIN_LEASE..=EtcdConfig::MAX_LEASE).contains(&ttl)
        {
            return Err(Error::unsupported(
                NAME,
                format_args!("a TTL of {ttl:?}; ask for 2s to 24h"),
            ));
        }
        if request.lock_delay.is_some() {
            return Err(Error::unsupported(NAME, "lock_delay"));
        }
        Ok(())
    }
}

impl Shared {
    fn client(&self) -> Result<&Arc<Client>> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // Certificates may have gone since the backend was opened.
        let cluster = std::sync::Mutex::new(Some(Cluster::new(&self.config)?));
        let take = || cluster.lock().ok().and_then(|mut cluster| cluster.take());
        Ok(self.client.get_or_init(|| {
            // Invariant: run at most once for each cluster that was made here.
            let cluster = take().unwrap_or_else(|| unreachable!("one client takes one cluster"));
            Client::new(cluster)
        }))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A forked child has no client of its own here, and leaves the parent's alone.
        if let Some(client) = self.client.get() {
            client.start_closing();
        }
    }
}

/// Waits for what a task of the backend puts there.
async fn wait_for<T>(handoff: &Handoff<T>) -> T {
    std::future::poll_fn(|context| handoff.poll_take(context)).await
}

/// Runs on the lock I/O thread, and waits for it.
async fn on_io_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let answer = Arc::new(Handoff::new());
    let place = Arc::clone(&answer);
    runtime::handle().spawn(async move {
        let outcome = work.await;
        if let Some(waker) = place.give(outcome) {
            runtime::wake(waker);
        }
    });
    wait_for(&answer).await
}

#[async_trait]
impl LockBackend for EtcdBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Network, LeaseKind::PerSession);
        capabilities.ordering = Ordering::Global;
        capabilities.fencing = FencingLife::Store;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        capabilities.acquire_many = true;
        capabilities.break_lock = true;
        capabilities.detach = DetachReach::Anywhere;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = Self::check(request) {
            return Step::Ready(Err(error));
        }
        let (shared, key, request) = (Arc::clone(&self.shared), key.clone(), request.clone());
        Step::wait(async move {
            let client = shared.client()?;
            let (asking, listener) = Asking::new(client.place(&key), request);
            let listener = match client.table.begin(&asking) {
                None if client.is_closed() => {
                    client.table.forget(asking.request.attempt);
                    return Err(Error::closed(NAME));
                }
                None => {
                    runtime::handle().spawn(Attempt::new(Arc::clone(client), asking).run());
                    listener
                }
                Some(Stage::Asking(asking)) => asking.listen(),
                Some(Stage::Held(hold)) => return Ok(Some(hold.grant()?)),
                Some(Stage::Detached(_) | Stage::Leaving(_)) => return Err(Error::closed(NAME)),
            };
            wait_for(&listener).await
        })
    }

    fn release(&self, _key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let (shared, attempt) = (Arc::clone(&self.shared), grant.attempt);
        Step::wait(async move {
            let client = shared.client()?;
            let Some(hold) = client.table.give_up(attempt) else {
                return Ok(Released::AlreadyLost);
            };
            let answer = Arc::new(Handoff::new());
            let end = leave::end(Arc::clone(client), hold, Some(Arc::clone(&answer)));
            runtime::handle().spawn(end);
            wait_for(&answer).await
        })
    }

    fn abandon(&self, _key: &LockKey, attempt: OwnerToken) {
        // A process that never used its client has nothing to abandon; a forked child must not.
        let Some(client) = self.shared.client.get() else {
            return;
        };
        if let Some(hold) = client.table.give_up(attempt) {
            runtime::handle().spawn(leave::end(Arc::clone(client), hold, None));
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (shared, key, grant) = (Arc::clone(&self.shared), key.clone(), grant.clone());
        Step::wait(async move {
            let client = Arc::clone(shared.client()?);
            let place = client.place(&key);
            if let Change::Attach { owner, mode } = change {
                let attached = alter::attach(client, place, grant, owner, mode);
                return on_io_thread(attached).await.map(Attached::take);
            }
            on_io_thread(alter::alter(client, place, grant, change)).await
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        let client = Arc::clone(self.shared.client()?);
        let leases: Vec<OwnerToken> = batch.iter().map(|renewal| renewal.lease).collect();
        on_io_thread(async move {
            let mut outcomes = Vec::new();
            for lease in leases {
                outcomes.push(match client.sessions.named(lease) {
                    Some(session) => match session.renew(&client.cluster).await {
                        Ok(deadline) => Renewed::Until(deadline),
                        Err(failure) if failure.reason == Reason::NoLease => Renewed::Lost,
                        Err(failure) => Renewed::Failed(failure.into_error()),
                    },
                    None => Renewed::Lost,
                });
            }
            Ok(outcomes)
        })
        .await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        for (_, request) in wanted {
            if let Err(error) = Self::check(request) {
                return Step::Ready(Err(error));
            }
        }
        if let Err(error) = many::check(wanted) {
            return Step::Ready(Err(error));
        }
        let (shared, wanted) = (Arc::clone(&self.shared), wanted.to_vec());
        Step::wait(async move {
            let client = Arc::clone(shared.client()?);
            on_io_thread(many::acquire(client, wanted)).await
        })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        let client = Arc::clone(self.shared.client()?);
        on_io_thread(async move { inspect::inspect(&client, &query).await }).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        let client = Arc::clone(self.shared.client()?);
        let place = client.place(key);
        on_io_thread(async move { inspect::break_lock(&client, &place, attempt).await }).await
    }

    async fn close(&self) -> Result<()> {
        let client = Arc::clone(self.shared.client()?);
        on_io_thread(async move { client.close().await }).await
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend")
            .field("endpoints", &self.shared.config.endpoints)
            .field("prefix", &self.shared.config.prefix)
            .finish_non_exhaustive()
    }
}
