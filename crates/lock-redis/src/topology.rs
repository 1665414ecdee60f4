//! Which node has which key.

use lock_core::{ErrorKind, Result};
use redis::{ConnectionInfo, Value, from_redis_value};

use crate::config::{RedisConfig, Topology};
use crate::connect::{at_node, connect_plain, place_of, target};
use crate::error::error;
use crate::names::SLOTS;

/// The name of the one node there is, where there is one.
const ONLY: &str = "";

/// Which node has which key, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    topology: Topology,
    /// The first URL's settings, for other nodes.
    template: ConnectionInfo,
    /// Node of each slot, in a cluster; empty until it is known.
    slots: Vec<Option<String>>,
}

/// Ranges of slots and their nodes.
pub(crate) type SlotMap = Vec<(u16, u16, String)>;

impl Nodes {
    /// # Errors
    /// `InvalidConfig` when a URL cannot be understood.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let urls = config.urls();
        let mut targets = Vec::new();
        for url in &urls {
            targets.push(target(config, url)?);
        }
        let Some(template) = targets.into_iter().next() else {
            let message = "`url` is missing; write redis://host:port";
            return Err(error(ErrorKind::InvalidConfig, message));
        };
        let topology = config.topology();
        if topology == Topology::Single && urls.len() > 1 {
            let message = "several URLs for one server; write topology = \"cluster\", or one URL";
            return Err(error(ErrorKind::InvalidConfig, message));
        }
        if topology == Topology::Sentinel && config.sentinel.is_none() {
            let message = "`sentinel.master` is missing: the name that the sentinels know";
            return Err(error(ErrorKind::InvalidConfig, message));
        }
        if topology == Topology::Cluster && template.redis_settings().db() != 0 {
            let message = "a cluster has only database 0; leave the number out of the URL";
            return Err(error(ErrorKind::InvalidConfig, message));
        }
        Ok(Self {
            topology,
            template,
            slots: Vec::new(),
        })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// The node of a slot, if it is known.
    pub(crate) fn of(&self, slot: u16) -> Option<String> {
        if self.is_cluster() {
            self.slots.get(usize::from(slot)).cloned().flatten()
        } else {
            Some(ONLY.to_owned())
        }
    }

    /// Every node there is, as far as it is known.
    pub(crate) fn all(&self) -> Vec<String> {
        if !self.is_cluster() {
            return vec![ONLY.to_owned()];
        }
        let mut all: Vec<String> = self.slots.iter().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Takes a new map over. Slots that it leaves out have no node.
    pub(crate) fn learn(&mut self, map: SlotMap) {
        self.slots = vec![None; usize::from(SLOTS)];
        for (first, last, node) in map {
            for slot in first..=last.min(SLOTS - 1) {
                self.slots[usize::from(slot)] = Some(node.clone());
            }
        }
    }

    /// One slot has moved.
    pub(crate) fn moved(&mut self, slot: u16, node: String) {
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Some(node);
        }
    }

    /// Where to connect to for a node; asks the sentinels where that is needed.
    pub(crate) async fn locate(config: &RedisConfig, node: &str) -> Result<ConnectionInfo> {
        let nodes = Self::new(config)?;
        match nodes.topology {
            Topology::Single => Ok(nodes.template),
            Topology::Sentinel => master(config).await,
            Topology::Cluster => {
                let (host, port) = split(node)?;
                Ok(at_node(&nodes.template, host, port))
            }
        }
    }
}

fn split(node: &str) -> Result<(&str, u16)> {
    node.rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| {
            let message = format!("the cluster names a node `{node}`, which is no address");
            error(ErrorKind::Backend, message)
        })
}

/// The slots of a cluster, from whichever of its configured nodes answers first.
pub(crate) async fn slots(config: &RedisConfig) -> Result<SlotMap> {
    let mut failure = None;
    for url in config.urls() {
        let seed = target(config, url)?;
        match ask_for_slots(config, seed).await {
            Ok(map) => return Ok(map),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| error(ErrorKind::InvalidConfig, "`url` is missing")))
}

async fn ask_for_slots(config: &RedisConfig, seed: ConnectionInfo) -> Result<SlotMap> {
    let place = place_of(&seed);
    let own_host = place
        .rsplit_once(':')
        .map_or(place.as_str(), |(host, _)| host)
        .to_owned();
    let mut connection = connect_plain(config, seed).await?;
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let asked = command.query_async::<Vec<Vec<Value>>>(&mut connection);
    let answer = tokio::time::timeout(config.response_timeout, asked).await;
    let failed = |why: String| {
        error(
            ErrorKind::Unavailable,
            format!("{place} does not tell the cluster's slots: {why}"),
        )
    };
    let ranges = match answer {
        Ok(Ok(ranges)) => ranges,
        Ok(Err(failure)) if failure.to_string().contains("cluster support disabled") => {
            return Err(error(
                ErrorKind::InvalidConfig,
                format!("{place} is no node of a cluster; write topology = \"single\""),
            ));
        }
        Ok(Err(failure)) => match crate::error::remedy(&failure) {
            crate::error::Remedy::Refuse(error) => return Err(error),
            _ => return Err(failed(failure.to_string())),
        },
        Err(_) => return Err(failed("no answer".into())),
    };
    let mut map = SlotMap::new();
    for range in ranges {
        let mut parts = range.into_iter();
        let (first, last, master) = (parts.next(), parts.next(), parts.next());
        let (Some(Value::Int(first)), Some(Value::Int(last)), Some(Value::Array(master))) =
            (first, last, master)
        else {
            continue;
        };
        let mut master = master.into_iter();
        let host = master.next().map(from_redis_value::<Option<String>>);
        let port = master.next().map(from_redis_value::<u16>);
        let (Ok(first), Ok(last), Some(Ok(port))) =
            (u16::try_from(first), u16::try_from(last), port)
        else {
            continue;
        };
        // A node that does not know its own address means: as you asked.
        let host = match host {
            Some(Ok(Some(host))) if !host.is_empty() && host != "?" => host,
            _ => own_host.clone(),
        };
        map.push((first, last, format!("{host}:{port}")));
    }
    Ok(map)
}

/// Where the master is, from whichever sentinel answers first.
async fn master(config: &RedisConfig) -> Result<ConnectionInfo> {
    let Some(sentinel) = &config.sentinel else {
        let message = "`sentinel.master` is missing: the name that the sentinels know";
        return Err(error(ErrorKind::InvalidConfig, message));
    };
    // The credentials beside the URLs are the master's.
    let mut for_sentinels = config.clone();
    (for_sentinels.username, for_sentinels.password) = (None, None);
    let mut failure = None;
    for url in config.urls() {
        let place = target(&for_sentinels, url)?;
        let mut connection = match connect_plain(&for_sentinels, place.clone()).await {
            Ok(connection) => connection,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(&sentinel.master);
        let asked = command.query_async::<Option<(String, u16)>>(&mut connection);
        let answer = tokio::time::timeout(config.response_timeout, asked).await;
        let place = place_of(&place);
        match answer {
            Ok(Ok(Some((host, port)))) => return at_master(config, &host, port),
            Ok(Ok(None)) => {
                failure = Some(error(
                    ErrorKind::InvalidConfig,
                    format!("the sentinel {place} knows no master `{}`", sentinel.master),
                ));
            }
            Ok(Err(refused)) => {
                let message = format!("the sentinel {place} does not tell the master: {refused}");
                failure = Some(error(ErrorKind::Unavailable, message));
            }
            Err(_) => {
                let message = format!("the sentinel {place} did not answer in time");
                failure = Some(error(ErrorKind::Unavailable, message));
            }
        }
    }
    Err(failure.unwrap_or_else(|| error(ErrorKind::InvalidConfig, "`url` is missing")))
}

fn at_master(config: &RedisConfig, host: &str, port: u16) -> Result<ConnectionInfo> {
    let sentinel = config.sentinel.clone().unwrap_or_default();
    let first = config.urls().first().copied().unwrap_or_default();
    let tls = sentinel.tls.unwrap_or_else(|| first.starts_with("rediss"));
    let scheme = if tls { "rediss" } else { "redis" };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    target(
        config,
        &format!("{scheme}://{host}:{port}/{}", sentinel.database),
    )
}
