//! A cluster of three masters.

use std::ops::Range;

use super::{RedisOptions, RedisServer};
use crate::Outcome;
use crate::services::eventually;

const SLOTS: u16 = 16_384;
const MASTERS: u16 = 3;

/// Three masters, each with a third of the slots. Gone on drop.
#[derive(Debug)]
pub struct RedisCluster {
    masters: Vec<RedisServer>,
}

impl RedisCluster {
    /// A cluster that takes commands for all slots.
    ///
    /// # Errors
    /// When the program is missing, or the masters do not find each other.
    ///
    /// # Blocking
    /// Until then, some 2.5 s.
    pub fn start() -> Outcome<Self> {
        Self::start_with(&RedisOptions::default())
    }

    /// A cluster of masters with these options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Blocking
    /// Until it takes commands, some 2.5 s.
    pub fn start_with(options: &RedisOptions) -> Outcome<Self> {
        let options = options.clone().with_cluster();
        let masters = (0..MASTERS)
            .map(|_| RedisServer::start_with(options.clone()))
            .collect::<Outcome<Vec<_>>>()?;
        for (number, master) in masters.iter().enumerate() {
            // Distinct from the start: three nodes of one epoch would first have to agree.
            master.query::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
            let slots: Vec<String> = third(number).map(|slot| slot.to_string()).collect();
            master.query::<()>(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")))?;
        }
        for master in &masters[1..] {
            let (port, bus) = (masters[0].ports.plain, masters[0].ports.bus);
            master.query::<()>(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))?;
        }
        let cluster = Self { masters };
        cluster.settle()?;
        Ok(cluster)
    }

    /// The masters.
    #[must_use]
    pub fn masters(&self) -> &[RedisServer] {
        &self.masters
    }

    /// The URLs of all masters.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.masters.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key's name.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn slot_of(&self, name: &str) -> Outcome<u16> {
        self.masters[0].query(&format!("CLUSTER KEYSLOT {name}"))
    }

    /// The master that has a slot, by its place among [`masters`](Self::masters), as the cluster was
    /// started.
    #[must_use]
    pub fn first_owner_of(&self, slot: u16) -> usize {
        (0..self.masters.len())
            .find(|&number| third(number).contains(&slot))
            .unwrap_or_default()
    }

    /// Begins to move a slot: keys that are not there any more are answered with `ASK`.
    ///
    /// # Errors
    /// When a master refuses.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) -> Outcome {
        let (source, target) = (self.identity(from)?, self.identity(to)?);
        self.masters[to].query::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"))?;
        self.masters[from].query::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"))?;
        let names: Vec<String> =
            self.masters[from].query(&format!("CLUSTER GETKEYSINSLOT {slot} 1000"))?;
        for name in names {
            let port = self.masters[to].port();
            let line = format!("MIGRATE 127.0.0.1 {port} {name} 0 5000");
            self.masters[from].query::<()>(&line)?;
        }
        Ok(())
    }

    /// Ends a move: from now on the old owner answers with `MOVED`.
    ///
    /// # Errors
    /// When a master refuses.
    pub fn end_move(&self, slot: u16, to: usize) -> Outcome {
        let owner = self.identity(to)?;
        let others = (0..self.masters.len()).filter(|&number| number != to);
        for number in std::iter::once(to).chain(others) {
            self.masters[number].query::<()>(&format!("CLUSTER SETSLOT {slot} NODE {owner}"))?;
        }
        Ok(())
    }

    fn identity(&self, number: usize) -> Outcome<String> {
        self.masters[number].query("CLUSTER MYID")
    }

    /// Every master takes commands and knows the owner of every slot.
    fn settle(&self) -> Outcome {
        for master in &self.masters {
            eventually("cluster that takes commands", || {
                let state: String = master.query("CLUSTER INFO")?;
                let ready = ["cluster_state:ok", "cluster_known_nodes:3"]
                    .iter()
                    .all(|line| state.contains(line));
                let owned = format!("cluster_slots_ok:{SLOTS}");
                Ok((ready && state.contains(&owned)).then_some(()))
            })?;
        }
        Ok(())
    }
}

fn third(number: usize) -> Range<u16> {
    let bound = |number: usize| (usize::from(SLOTS) * number / usize::from(MASTERS)) as u16;
    bound(number)..bound(number + 1)
}
