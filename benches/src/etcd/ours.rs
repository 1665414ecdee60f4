//! Ours, as a program gets it.

use std::sync::Arc;

use anyhow::Result;
use lock_core::{Lock, LockBackend, LockKey};
use lock_etcd::{EtcdBackend, EtcdConfig};

/// A client of its own, with a session of its own, as if it were another process.
pub(crate) fn open(endpoints: &[String]) -> Result<Arc<dyn LockBackend>> {
    let config = EtcdConfig::with_endpoints(endpoints);
    Ok(Arc::new(EtcdBackend::open(config)?))
}

pub(crate) fn lock(backend: &Arc<dyn LockBackend>, name: &str) -> Result<Lock> {
    Ok(Lock::new(Arc::clone(backend), LockKey::new(name)?))
}
