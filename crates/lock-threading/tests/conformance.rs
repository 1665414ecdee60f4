//! The whole suite over the in-process backend.

use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{Error, LockBackend, LockKey, Result};
use lock_testkit::{Fault, Kit};
use lock_threading::ThreadingBackend;

/// One table, many handles.
#[derive(Debug, Default)]
struct ThreadingKit {
    table: ThreadingBackend,
}

#[async_trait]
impl Kit for ThreadingKit {
    fn name(&self) -> &str {
        "threading"
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(Arc::new(self.table.clone()))
    }

    fn closable_client(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(Arc::new(ThreadingBackend::new()))
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        Err("its table is memory of one process")
    }

    fn open(&self, _spec: &str) -> Result<Arc<dyn LockBackend>> {
        Err(Error::unsupported("threading", "a second process"))
    }

    async fn stored(&self) -> Result<Vec<String>> {
        let keys = self.table.keys_in_use();
        Ok((0..keys).map(|number| format!("key {number}")).collect())
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        Some("there is nothing outside the process that could fail")
    }

    async fn inflict(&self, _fault: Fault, _key: &LockKey) -> Result<()> {
        Err(Error::unsupported("threading", "faults"))
    }
}

fn main() -> std::process::ExitCode {
    lock_testkit::main(ThreadingKit::default())
}
