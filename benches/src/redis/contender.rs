//! The floor, a peer and ours behind one face, so that all are measured by the same loop.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lock_core::{Lock, LockGuard, Released};

use crate::floor::Floor;
use crate::ours;

pub(crate) const FLOOR: &str = "floor";
pub(crate) const RSLOCK: &str = "rslock";
pub(crate) const OURS: &str = "ours";

/// Longer than any section.
const LIFE: Duration = Duration::from_secs(30);

/// A client with a connection of its own.
#[derive(Clone)]
pub(crate) enum Contender {
    Floor(Floor),
    Rslock(rslock::LockManager),
    Ours(ours::Client),
}

/// One contender at one key.
pub(crate) enum Seat {
    Floor(Floor, String),
    Rslock(rslock::LockManager, String),
    Ours(Lock),
}

/// A lock that is held.
pub(crate) enum Held<'a> {
    Floor(&'a Floor, &'a str, String),
    Rslock(rslock::LockGuard),
    Ours(LockGuard),
}

impl Contender {
    pub(crate) fn open(name: &str, url: &str) -> Result<Self> {
        Ok(match name {
            FLOOR => Self::Floor(Floor::open(url)?),
            RSLOCK => Self::Rslock(rslock::LockManager::new(vec![url])),
            OURS => Self::Ours(ours::Client::open(url)?),
            unknown => bail!("no contender `{unknown}`"),
        })
    }

    pub(crate) fn at(&self, key: &str) -> Result<Seat> {
        Ok(match self {
            Self::Floor(floor) => Seat::Floor(floor.clone(), format!("floor:{key}")),
            Self::Rslock(manager) => Seat::Rslock(manager.clone(), format!("rslock:{key}")),
            Self::Ours(client) => Seat::Ours(client.lock(key)?),
        })
    }
}

impl Seat {
    pub(crate) async fn acquire(&self) -> Result<Held<'_>> {
        Ok(match self {
            Self::Floor(floor, key) => Held::Floor(floor, key, floor.acquire(key).await?),
            Self::Rslock(manager, key) => Held::Rslock(manager.acquire(key.as_str(), LIFE).await?),
            Self::Ours(lock) => Held::Ours(lock.acquire().await?),
        })
    }
}

impl Held<'_> {
    pub(crate) async fn release(self) -> Result<()> {
        match self {
            Self::Floor(floor, key, token) => floor.release(key, &token).await?,
            Self::Rslock(guard) => guard.release().await,
            Self::Ours(guard) => {
                let released = guard.release().await?;
                ensure!(
                    released == Released::Released,
                    "a lock was lost: {released:?}"
                );
            }
        }
        Ok(())
    }
}
