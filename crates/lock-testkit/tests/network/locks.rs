//! The locks of a client.

use std::sync::Arc;
use std::time::Duration;

use lock_core::{AcquireOptions, Lock, LockKey};

use super::setup::Client;

impl Client {
    pub(crate) fn lock(&self, key: &LockKey) -> Lock {
        Lock::new(Arc::clone(&self.backend), key.clone())
    }

    pub(crate) fn leased(&self, key: &LockKey, ttl: Duration) -> Lock {
        self.lock(key).with_options(AcquireOptions::new().ttl(ttl))
    }
}
