//! What deadlock detection costs, that it finds every cycle, and nothing else.

mod chain;
mod crowd;
mod cycles;
mod uncontended;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use anyhow::Result;
use lock_benches::Session;
use lock_manager::{Acquire, Config, LockGuard, LockManager};

/// All sections about deadlock detection.
pub(crate) fn measure(session: &mut Session) -> Result<()> {
    uncontended::measure(session)?;
    chain::measure(session)?;
    cycles::measure(session)?;
    crowd::measure(session)
}

/// In-process locks without and with detection, and with different keys.
struct Both {
    off: LockManager,
    on: LockManager,
}

impl Both {
    fn new() -> Result<Self> {
        Ok(Self {
            off: LockManager::new(Config::default())?,
            on: detecting()?,
        })
    }
}

fn detecting() -> Result<LockManager> {
    let mut config = Config::default();
    config.deadlock.detect = true;
    config.namespace = "detecting".to_owned();
    Ok(LockManager::new(config)?)
}

fn poll(acquire: &mut Acquire) -> Poll<lock_manager::Result<LockGuard>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}
