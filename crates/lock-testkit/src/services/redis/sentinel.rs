//! A master with two replicas, watched by three sentinels.

use super::{RedisOptions, RedisServer};
use crate::services::eventually;
use crate::{Failure, Outcome};

/// What the sentinels call the master.
const NAME: &str = "locks";
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// How long a master may be silent, in milliseconds. A busy machine may well keep one from
/// answering for a second, and replacing it would lose what its replicas have not seen.
const SILENCE: u32 = 10_000;

/// A master, two replicas and three sentinels. Gone on drop.
///
/// A master that is silent for ten seconds is replaced; one that [`kill_master`](Self::kill_master)
/// ends, at once, as by an operator who does not wait for that.
#[derive(Debug)]
pub struct RedisSentinel {
    nodes: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinel {
    /// All six servers, once the sentinels know each other and the replicas.
    ///
    /// # Errors
    /// When the program is missing, or they do not find each other.
    ///
    /// # Blocking
    /// Until then, some 2.5 s.
    pub fn start() -> Outcome<Self> {
        Self::start_with(&RedisOptions::default())
    }

    /// The same, with master and replicas of these options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Blocking
    /// Until they know each other, some 2.5 s.
    pub fn start_with(options: &RedisOptions) -> Outcome<Self> {
        let nodes = (0..=REPLICAS)
            .map(|_| RedisServer::start_with(options.clone()))
            .collect::<Outcome<Vec<_>>>()?;
        let port = nodes[0].port();
        for replica in &nodes[1..] {
            replica.replicate(port)?;
        }
        let mut watch = RedisOptions::default().with_sentinel();
        for line in [
            format!("sentinel monitor {NAME} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {NAME} {SILENCE}"),
            format!("sentinel failover-timeout {NAME} 3000"),
            format!("sentinel parallel-syncs {NAME} {REPLICAS}"),
        ] {
            watch = watch.with_line(line);
        }
        if let Some(password) = &options.password {
            watch = watch.with_line(format!("sentinel auth-pass {NAME} {password}"));
        }
        let sentinels = (0..SENTINELS)
            .map(|_| RedisServer::start_with(watch.clone()))
            .collect::<Outcome<Vec<_>>>()?;
        let watched = Self { nodes, sentinels };
        watched.settle()?;
        Ok(watched)
    }

    /// What the sentinels call the master.
    #[must_use]
    pub fn name(&self) -> &str {
        NAME
    }

    /// The URLs of the sentinels.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The master and the replicas, in the order of the start.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The node that most sentinels hold for the master now.
    ///
    /// # Errors
    /// When no two of them agree.
    pub fn master(&self) -> Outcome<&RedisServer> {
        let ports: Vec<u16> = self.sentinels.iter().filter_map(master_of).collect();
        let agreed = |node: &&RedisServer| {
            let port = node.port();
            ports.iter().filter(|&&seen| seen == port).count() > SENTINELS / 2
        };
        let nobody = || Failure::new(format!("the sentinels do not agree on a master: {ports:?}"));
        self.nodes.iter().find(agreed).ok_or_else(nobody)
    }

    /// Makes the sentinels appoint another master, as an operator would, while the old one is well.
    ///
    /// The old one goes on to call itself master, and takes writes that will be lost, until the
    /// sentinels correct it some ten seconds later.
    ///
    /// # Errors
    /// When they do not.
    ///
    /// # Blocking
    /// Until the new master is agreed on, some 1.5 s.
    pub fn fail_over(&self) -> Outcome {
        self.replace(self.master()?)
    }

    /// Ends the master as a crash would, waits until another node is the master, and returns the
    /// dead one.
    ///
    /// # Errors
    /// When no other is appointed.
    ///
    /// # Blocking
    /// Until then, some 1.5 s.
    pub fn kill_master(&self) -> Outcome<&RedisServer> {
        let master = self.master()?;
        master.kill()?;
        self.replace(master)?;
        Ok(master)
    }

    fn replace(&self, old: &RedisServer) -> Outcome {
        eventually("failover that begins", || {
            let line = format!("SENTINEL FAILOVER {NAME}");
            self.sentinels[0].query::<()>(&line).map(Some)
        })?;
        eventually("another master", || {
            let new = self.master()?;
            Ok((new.port() != old.port() && new.info("role")? == "master").then_some(()))
        })
    }

    fn settle(&self) -> Outcome {
        for sentinel in &self.sentinels {
            eventually("sentinels that know each other", || {
                let state: Vec<String> = sentinel.query(&format!("SENTINEL MASTER {NAME}"))?;
                let number = |field: &str| {
                    let mut pairs = state.chunks(2);
                    let pair = pairs.find(|pair| pair[0] == field)?;
                    pair.get(1)?.parse::<usize>().ok()
                };
                let ready = number("num-slaves") == Some(REPLICAS)
                    && number("num-other-sentinels") == Some(SENTINELS - 1);
                Ok(ready.then_some(()))
            })?;
        }
        Ok(())
    }
}

fn master_of(sentinel: &RedisServer) -> Option<u16> {
    let line = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}");
    let (_, port): (String, u16) = sentinel.query(&line).ok()?;
    Some(port)
}
