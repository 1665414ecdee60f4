//! The backend as its users have it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lock_core::{
    AcquireOptions, InspectQuery, Keepalive, KeyReport, Lock, LockBackend, LockKey, Mode,
    ProcessRecord,
};
use lock_redis::{RedisBackend, RedisConfig};

const NAMESPACE: &str = "bench";

/// One client of the server: one backend, with the keepalive around it.
#[derive(Clone)]
pub(crate) struct Client(Arc<dyn LockBackend>);

impl Client {
    pub(crate) fn open(url: &str) -> Result<Self> {
        let backend = RedisBackend::new(RedisConfig::at(url))?;
        Ok(Self(Arc::new(Keepalive::new(Arc::new(backend)))))
    }

    pub(crate) fn lock(&self, key: &str) -> Result<Lock> {
        let key = LockKey::new(key)?.in_namespace(NAMESPACE)?;
        Ok(Lock::new(Arc::clone(&self.0), key))
    }

    /// How many wait for a key, as the server has it.
    pub(crate) fn waiters(&self, key: &str) -> Result<usize> {
        Ok(self.report(self.lock(key)?.key())?.waiters.len())
    }

    /// Ends its connections.
    pub(crate) fn close(self) -> Result<()> {
        Ok(on_a_runtime(self.0.close())??)
    }

    fn report(&self, key: &LockKey) -> Result<KeyReport> {
        let page = on_a_runtime(self.0.inspect(InspectQuery::key(key.clone())))??;
        page.keys
            .into_iter()
            .next()
            .context("the key is not reported")
    }
}

/// What the contract demands is on while speed is measured: fence, mode and holder record.
pub(crate) fn assert_that_all_is_stored(url: &str) -> Result<()> {
    let client = Client::open(url)?;
    let lock = client.lock("stored")?;
    let options = AcquireOptions::new().label("a label").record(*b"a record");
    let first = lock.acquire_with(&options).wait()?;
    let report = client.report(lock.key())?;
    let [holder] = &report.holders[..] else {
        anyhow::bail!("not one holder: {report:?}");
    };
    let number = first.fencing_token().map(|token| token.number());
    ensure!(
        number.is_some() && holder.fencing == number,
        "no fence: {holder:?}"
    );
    ensure!(holder.mode == Mode::Exclusive, "no mode: {holder:?}");
    ensure!(
        holder.attempt == first.attempt(),
        "another attempt: {holder:?}"
    );
    let here = ProcessRecord::current();
    ensure!(holder.process == here, "no process: {holder:?}");
    ensure!(
        holder.label.as_deref() == Some("a label"),
        "no label: {holder:?}"
    );
    ensure!(
        holder.record.as_deref() == Some(b"a record"),
        "no record: {holder:?}"
    );
    ensure!(holder.remaining.is_some(), "no lease: {holder:?}");
    drop(first);
    let second = lock.acquire_with(&options).wait()?;
    let risen = second.fencing_token().map(|token| token.number());
    ensure!(risen > number, "the fence did not rise");
    drop(second);
    client.close()
}

/// Runs what needs no runtime but a thread to park.
fn on_a_runtime<F: Future>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(future))
}
