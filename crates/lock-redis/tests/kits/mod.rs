//! What the suite needs of each way to run Redis.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use lock_core::{Error, ErrorKind, Keepalive, LockBackend, LockKey, Result};
use lock_redis::{RedisBackend, RedisConfig};
use lock_testkit::services::redis::{RedisCluster, RedisOptions, RedisSentinel, RedisServer};
use lock_testkit::{Failure, Fault, Kit, Outcome};

/// A way to run Redis.
#[derive(Debug)]
enum Servers {
    Single(RedisServer),
    Tls(RedisServer),
    Cluster(RedisCluster),
    Sentinel(RedisSentinel),
}

#[derive(Debug)]
struct RedisKit {
    name: &'static str,
    /// Started with the first client: a second process of a trial has none of its own.
    servers: OnceLock<Servers>,
}

/// Runs the suite over the servers of this name, which are started for it.
pub(crate) fn run(name: &'static str) -> std::process::ExitCode {
    let servers = OnceLock::new();
    lock_testkit::main(RedisKit { name, servers })
}

fn start(name: &str) -> Outcome<Servers> {
    match name {
        "redis" => RedisServer::start().map(Servers::Single),
        "redis-tls" => {
            let options = RedisOptions::default().with_tls();
            RedisServer::start_with(options).map(Servers::Tls)
        }
        "redis-cluster" => RedisCluster::start().map(Servers::Cluster),
        "redis-sentinel" => RedisSentinel::start().map(Servers::Sentinel),
        other => Err(Failure::new(format!("there are no servers called {other}"))),
    }
}

fn client(config: RedisConfig) -> Result<Arc<dyn LockBackend>> {
    Ok(Arc::new(Keepalive::new(Arc::new(RedisBackend::new(
        config,
    )?))))
}

fn failed(failure: Failure) -> Error {
    Error::new(ErrorKind::Backend, failure.to_string())
}

impl RedisKit {
    fn servers(&self) -> &Servers {
        self.servers.get_or_init(|| match start(self.name) {
            Ok(servers) => servers,
            Err(failure) => panic!("cannot start the servers: {failure}"),
        })
    }

    fn masters(&self) -> Outcome<Vec<&RedisServer>> {
        Ok(match self.servers() {
            Servers::Single(server) | Servers::Tls(server) => vec![server],
            Servers::Cluster(cluster) => cluster.masters().iter().collect(),
            Servers::Sentinel(sentinel) => vec![sentinel.master()?],
        })
    }

    fn everybody(&self) -> Vec<&RedisServer> {
        match self.servers() {
            Servers::Single(server) | Servers::Tls(server) => vec![server],
            Servers::Cluster(cluster) => cluster.masters().iter().collect(),
            Servers::Sentinel(sentinel) => sentinel
                .nodes()
                .iter()
                .chain(sentinel.sentinels())
                .collect(),
        }
    }

    /// The node that has a key.
    fn node_of(&self, hash: &str) -> Outcome<&RedisServer> {
        match self.servers() {
            Servers::Single(server) | Servers::Tls(server) => Ok(server),
            Servers::Cluster(cluster) => {
                let slot = cluster.slot_of(hash)?;
                Ok(&cluster.masters()[cluster.first_owner_of(slot)])
            }
            Servers::Sentinel(sentinel) => sentinel.master(),
        }
    }

    fn spec_text(&self) -> Outcome<String> {
        Ok(match self.servers() {
            Servers::Single(server) => format!("single {}", server.url()),
            Servers::Tls(server) => {
                let authority = server.certificates()?.authority();
                format!("tls {} {}", server.tls_url()?, authority.display())
            }
            Servers::Cluster(cluster) => format!("cluster {}", cluster.urls().join(" ")),
            Servers::Sentinel(sentinel) => {
                format!("sentinel {} {}", sentinel.name(), sentinel.urls().join(" "))
            }
        })
    }

    fn leftovers(&self) -> Outcome<Vec<String>> {
        let mut left = Vec::new();
        for master in self.masters()? {
            let mut look = redis::cmd("EVAL");
            look.arg(include_str!("leftovers.lua")).arg(0);
            left.extend(look.query::<Vec<String>>(&mut master.connect()?)?);
        }
        Ok(left)
    }

    fn cause(&self, fault: Fault, key: &LockKey) -> Outcome {
        let hash = format!("lock:{{{}}}", key.encoded());
        match fault {
            Fault::ExpireLease => {
                let mut expire = redis::cmd("EVAL");
                expire.arg(include_str!("expire.lua")).arg(2);
                expire.arg(&hash).arg(format!("{hash}:s"));
                Ok(expire.query(&mut self.node_of(&hash)?.connect()?)?)
            }
            Fault::DeleteRecord => self.node_of(&hash)?.query(&format!("DEL {hash} {hash}:s")),
            Fault::Disconnect => self
                .masters()?
                .iter()
                .try_for_each(|master| master.disconnect_clients()),
            Fault::Restart => match self.servers() {
                // With its data, on another node.
                Servers::Sentinel(sentinel) => sentinel.kill_master()?.start_again(),
                _ => self
                    .masters()?
                    .iter()
                    .try_for_each(|master| master.restart()),
            },
            Fault::RestartEmpty => self
                .masters()?
                .iter()
                .try_for_each(|master| master.restart_empty()),
            Fault::Stall => self.everybody().iter().try_for_each(|server| server.stop()),
            Fault::Resume => self
                .everybody()
                .iter()
                .try_for_each(|server| server.resume()),
            _ => Err(Failure::new(
                "the suite has a fault that this kit does not know",
            )),
        }
    }
}

fn config_of(spec: &str) -> RedisConfig {
    let mut words = spec.split(' ');
    let kind = words.next().unwrap_or_default();
    match kind {
        "cluster" => RedisConfig::cluster(words),
        "sentinel" => {
            let name = words.next().unwrap_or_default().to_owned();
            RedisConfig::sentinel(words, name)
        }
        _ => {
            let mut config = RedisConfig::at(words.next().unwrap_or_default());
            config.tls.ca = words.next().map(PathBuf::from);
            config
        }
    }
}

#[async_trait]
impl Kit for RedisKit {
    fn name(&self) -> &str {
        self.name
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        client(config_of(&self.spec_text().map_err(failed)?))
    }

    fn spec(&self) -> Result<String, &'static str> {
        self.spec_text().map_err(|_| "the servers are gone")
    }

    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>> {
        client(config_of(spec))
    }

    async fn stored(&self) -> Result<Vec<String>> {
        self.leftovers().map_err(failed)
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        None
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        tokio::task::block_in_place(|| self.cause(fault, key)).map_err(failed)
    }
}
