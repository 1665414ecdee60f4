//! A cluster of our own, and what the suite takes from it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{Error, ErrorKind, LockBackend, LockKey, Result};
use lock_etcd::{EtcdBackend, EtcdConfig};
use lock_testkit::services::Proxy;
use lock_testkit::services::etcd::EtcdCluster;
use lock_testkit::services::proxy::Target;
use lock_testkit::{Failure, Fault, Kit};

/// Clients reach each node through a proxy. Started with the first client, so that a second process
/// of the suite starts none.
#[derive(Debug)]
pub(crate) struct EtcdKit {
    name: &'static str,
    nodes: usize,
    rig: OnceLock<std::result::Result<Rig, Failure>>,
}

#[derive(Debug)]
struct Rig {
    proxies: Vec<Proxy>,
    cluster: EtcdCluster,
}

impl EtcdKit {
    pub(crate) fn new(name: &'static str, nodes: usize) -> Self {
        Self {
            name,
            nodes,
            rig: OnceLock::new(),
        }
    }

    fn rig(&self) -> Result<&Rig> {
        let start = || {
            let cluster = EtcdCluster::start_with(self.nodes, Default::default())?;
            let proxies = cluster.nodes().iter();
            let proxies = proxies.map(|node| Proxy::start(Target::Port(node.port())));
            Ok(Rig {
                proxies: proxies.collect::<lock_testkit::Outcome<_>>()?,
                cluster,
            })
        };
        self.rig.get_or_init(start).as_ref().map_err(failed)
    }

    fn endpoints(&self) -> Result<Vec<String>> {
        let rig = self.rig()?;
        let ports = rig.proxies.iter().map(Proxy::port);
        Ok(ports.map(|port| rig.cluster.endpoint(port)).collect())
    }
}

fn failed(failure: &Failure) -> Error {
    Error::new(ErrorKind::Backend, failure.message().to_owned())
}

fn open<'a>(endpoints: impl IntoIterator<Item = &'a str>) -> Result<Arc<dyn LockBackend>> {
    let mut config = EtcdConfig::with_endpoints(endpoints);
    // A server that is slow on a loaded machine is no fault.
    config.patience = Duration::from_secs(20);
    config.request_timeout = Duration::from_secs(5);
    Ok(Arc::new(EtcdBackend::open(config)?))
}

impl Rig {
    fn control(&self, arguments: &[&str]) -> Result<String> {
        let said = self.cluster.control(arguments);
        said.map_err(|failure| failed(&failure))
    }

    fn holders(&self, key: &LockKey) -> Result<Vec<String>> {
        let names = self.control(&["get", "locks/locks/", "--prefix", "--keys-only"])?;
        let base = format!("/{}/h/", key.encoded());
        let names = names.lines().filter(|name| name.contains(&base));
        Ok(names.map(str::to_owned).collect())
    }

    fn expire(&self, key: &LockKey) -> Result<()> {
        for name in self.holders(key)? {
            let found = self.control(&["get", &name, "--write-out=json"])?;
            let found: serde_json::Value = serde_json::from_str(&found)
                .map_err(|error| failed(&Failure::new(error.to_string())))?;
            // A holder that left meanwhile has no lease to end.
            if let Some(lease) = found["kvs"][0]["lease"].as_i64() {
                self.control(&["lease", "revoke", &format!("{lease:x}")])?;
            }
        }
        Ok(())
    }

    fn for_all(
        &self,
        act: impl Fn(&lock_testkit::services::etcd::EtcdNode) -> lock_testkit::Outcome,
    ) -> Result<()> {
        let done = self.cluster.nodes().iter().try_for_each(act);
        done.map_err(|failure| failed(&failure))
    }
}

#[async_trait]
impl Kit for EtcdKit {
    fn name(&self) -> &str {
        self.name
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        let endpoints = self.endpoints()?;
        open(endpoints.iter().map(String::as_str))
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        let endpoints = self.endpoints().map_err(|_| "the cluster did not start")?;
        Ok(endpoints.join(","))
    }

    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>> {
        open(spec.split(','))
    }

    /// Sessions live as long as their clients.
    async fn stored(&self) -> Result<Vec<String>> {
        let names = self
            .rig()?
            .control(&["get", "locks/locks/", "--prefix", "--keys-only"])?;
        let names = names.lines().filter(|name| !name.is_empty());
        Ok(names.map(str::to_owned).collect())
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        None
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        let rig = self.rig()?;
        let whole = |done: lock_testkit::Outcome| done.map_err(|failure| failed(&failure));
        match fault {
            Fault::ExpireLease => rig.expire(key),
            Fault::DeleteRecord => {
                for name in rig.holders(key)? {
                    rig.control(&["del", &name])?;
                }
                Ok(())
            }
            Fault::Disconnect => {
                rig.proxies.iter().for_each(Proxy::cut);
                Ok(())
            }
            Fault::Restart => tokio::task::block_in_place(|| whole(rig.cluster.restart())),
            Fault::RestartEmpty => {
                tokio::task::block_in_place(|| whole(rig.cluster.restart_empty()))
            }
            Fault::Stall => rig.for_all(|node| node.stop()),
            Fault::Resume => rig.for_all(|node| node.resume()),
            _ => Err(Error::unsupported("etcd", fault)),
        }
    }

    /// The shortest that survives a busy machine; the servers count in whole seconds.
    fn short_ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
}
