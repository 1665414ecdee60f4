//! A kit whose clients are broken.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{LockBackend, LockKey, Result};

use super::{Defect, Faulty};
use crate::{Fault, Kit};

/// A kit whose clients all have one [`Defect`].
#[derive(Debug)]
pub struct FaultyKit<K> {
    inner: K,
    /// Its state is what all clients share.
    pattern: Faulty,
}

impl<K: Kit> FaultyKit<K> {
    /// Breaks the clients of `inner`.
    ///
    /// # Errors
    /// When `inner` has no client.
    pub fn new(inner: K, defect: Defect) -> Result<Self> {
        let pattern = Faulty::new(inner.client()?, defect);
        Ok(Self { inner, pattern })
    }

    fn broken(&self, client: Arc<dyn LockBackend>) -> Arc<dyn LockBackend> {
        let mut broken = self.pattern.clone();
        broken.inner = client;
        Arc::new(broken)
    }
}

#[async_trait]
impl<K: Kit> Kit for FaultyKit<K> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(self.broken(self.inner.client()?))
    }

    fn closable_client(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(self.broken(self.inner.closable_client()?))
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        self.inner.spec()
    }

    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>> {
        Ok(self.broken(self.inner.open(spec)?))
    }

    async fn stored(&self) -> Result<Vec<String>> {
        self.inner.stored().await
    }

    fn lacks(&self, fault: Fault) -> Option<&'static str> {
        self.inner.lacks(fault)
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        self.inner.inflict(fault, key).await
    }

    fn short_ttl(&self) -> Duration {
        self.inner.short_ttl()
    }
}
