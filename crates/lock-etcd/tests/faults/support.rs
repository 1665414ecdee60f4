//! Clients, locks, and proxies before every node.

use std::sync::Arc;
use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Lock, LockBackend, LockGuard, LockKey};
use lock_etcd::{EtcdBackend, EtcdConfig};
use lock_testkit::services::Proxy;
use lock_testkit::services::etcd::EtcdCluster;
use lock_testkit::services::proxy::{Direction, Target};
use lock_testkit::{Failure, Outcome};

/// Longer than anything that is expected to happen takes on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Longer than what is expected not to happen would take.
pub(crate) const NOT_NOW: Duration = Duration::from_secs(3);
/// A deadline that no test reaches: it takes a guard away.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// One client, as if it were a process of its own.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Arc<dyn LockBackend>);

impl Client {
    pub(crate) fn of(cluster: &EtcdCluster) -> Outcome<Self> {
        Self::with(patient(cluster.endpoints()))
    }

    pub(crate) fn with(config: EtcdConfig) -> Outcome<Self> {
        Ok(Self(Arc::new(EtcdBackend::open(config)?)))
    }

    pub(crate) fn lock(&self, name: &str) -> Outcome<Lock> {
        Ok(Lock::new(Arc::clone(&self.0), LockKey::new(name)?))
    }

    /// The lock, if it comes soon.
    pub(crate) async fn acquire(&self, name: &str) -> Outcome<LockGuard> {
        let options = AcquireOptions::new().wait_limit(SOON);
        Ok(self.lock(name)?.acquire_with(&options).await?)
    }

    /// Whether the lock comes within this time: [`SOON`] where it should, [`NOT_NOW`] where not.
    pub(crate) async fn acquires(&self, name: &str, within: Duration) -> Outcome<bool> {
        let options = AcquireOptions::new().wait_limit(within);
        Ok(self.lock(name)?.acquire_with(&options).await.is_ok())
    }

    /// What kind of error an acquire ends with, and what it says.
    pub(crate) async fn refusal(&self, name: &str) -> Outcome<(ErrorKind, String)> {
        let options = AcquireOptions::new().wait_limit(SOON);
        match self.lock(name)?.acquire_with(&options).await {
            Ok(_) => Err(Failure::new(format!("`{name}` was granted"))),
            Err(error) => Ok((error.kind(), error.to_string())),
        }
    }

    /// A task that waits for a lock which somebody holds, once it is queued.
    pub(crate) async fn wait_in_line(
        &self,
        name: &str,
    ) -> Outcome<tokio::task::JoinHandle<lock_core::Result<LockGuard>>> {
        let lock = self.lock(name)?;
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        eventually("the waiter is queued", async || {
            let query = lock_core::InspectQuery::key(lock.key().clone());
            let page = self.0.inspect(query).await?;
            Ok(page.keys.iter().any(|report| !report.waiters.is_empty()))
        })
        .await?;
        Ok(waiting)
    }
}

/// Settings with which a server that is slow on a loaded machine is no fault.
pub(crate) fn patient(endpoints: Vec<String>) -> EtcdConfig {
    let mut config = EtcdConfig::with_endpoints(endpoints);
    config.patience = SOON;
    config.request_timeout = SOON / 4;
    config
}

/// A cluster with a proxy before each node.
pub(crate) struct Proxied {
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) cluster: EtcdCluster,
}

impl Proxied {
    pub(crate) fn before(cluster: EtcdCluster) -> Outcome<Self> {
        let before =
            |node: &lock_testkit::services::etcd::EtcdNode| Proxy::start(Target::Port(node.port()));
        let proxies = cluster.nodes().iter().map(before).collect::<Outcome<_>>()?;
        Ok(Self { proxies, cluster })
    }

    /// Settings with which a server that is cut off is soon left for another.
    pub(crate) fn config(&self) -> EtcdConfig {
        let ports = self.proxies.iter().map(Proxy::port);
        let mut config = patient(ports.map(|port| self.cluster.endpoint(port)).collect());
        config.request_timeout = Duration::from_secs(1);
        config
    }

    /// Everything between the clients and the servers is held back.
    pub(crate) fn partition(&self) {
        self.proxies.iter().for_each(Proxy::partition);
    }

    /// Requests arrive, and are not answered.
    pub(crate) fn hold_replies_back(&self) {
        let replies = |proxy: &Proxy| proxy.black_hole(Direction::ToClient);
        self.proxies.iter().for_each(replies);
    }

    /// What goes either way takes so much longer.
    pub(crate) fn delay(&self, delay: Duration) {
        for proxy in &self.proxies {
            proxy.delay(Direction::ToServer, delay);
            proxy.delay(Direction::ToClient, delay);
        }
    }

    pub(crate) fn heal(&self) {
        self.proxies.iter().for_each(Proxy::heal);
    }

    pub(crate) fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }
}

/// Asks until the answer is yes.
pub(crate) async fn eventually(
    what: &str,
    mut is_so: impl AsyncFnMut() -> Outcome<bool>,
) -> Outcome {
    let asking = async {
        while !is_so().await? {
            // sleep: the interval of a poll, which orders nothing
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    match tokio::time::timeout(SOON, asking).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(format!("not within {SOON:?}: {what}"))),
    }
}

/// What comes soon, or a failure that names it.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Outcome<T> {
    let late = |_| Failure::new(format!("not within {SOON:?}: {what}"));
    tokio::time::timeout(SOON, future).await.map_err(late)
}
