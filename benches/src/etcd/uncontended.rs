//! One caller, one key, nobody in the way.

use std::time::Instant;

use anyhow::{Result, ensure};
use lock_benches::{Bar, Round, Samples, Session};
use lock_core::{AcquireOptions, Ordering};
use lock_testkit::services::etcd::EtcdCluster;
use tokio::runtime::Runtime;

use super::peer::Peer;
use super::{Bench, ours, started};

const PAIRS: usize = 400;
/// The Lock service takes four writes for a pair, so fewer of them make a sample.
const SERVICE_PAIRS: usize = 60;

impl Bench {
    pub(crate) fn uncontended(&self, session: &mut Session) -> Result<()> {
        for (cluster, nodes) in [(&self.one, "one node"), (&self.three, "three nodes")] {
            let name = format!("uncontended, {nodes}");
            let measure = |round: &mut Round| measure(round, cluster, &self.runtime);
            let Some(rounds) = session.section(&name, measure)? else {
                continue;
            };
            let bar = Bar::at_most(format!("raft entries of a pair, {nodes}"), 2.0);
            session.judge(&rounds, &bar, |round| round.get("raft entries of a pair"));
            let bar = Bar::at_most(format!("pair / raw put, p50, {nodes}"), 2.2);
            let ratio = |round: &Round| round.get("ours, us") / round.get("raw put, us");
            session.judge(&rounds, &bar, ratio);
            let bar = Bar::at_most(
                format!("pair / Lock service with a fresh lease, {nodes}"),
                0.5,
            );
            let ratio = |round: &Round| round.get("ours, us") / round.get("Lock service, us");
            session.judge(&rounds, &bar, ratio);
        }
        Ok(())
    }
}

fn measure(round: &mut Round, cluster: &EtcdCluster, runtime: &Runtime) -> Result<()> {
    let backend = ours::open(&cluster.endpoints())?;
    let capabilities = backend.capabilities();
    ensure!(
        capabilities.ordering == Ordering::Global,
        "priorities are not among all"
    );
    let lock = ours::lock(&backend, "uncontended")?;
    let lock = lock.with_options(AcquireOptions::new().priority(3));
    let leader = started(cluster.leader())?;
    let entries = || anyhow::Ok(started(cluster.nodes()[leader].metrics())?.raft_entries());
    // Nobody writes faster than who asks the leader.
    let endpoint = &cluster.endpoints()[leader];

    runtime.block_on(async {
        let mut peer = Peer::connect(endpoint).await?;
        let (mut put, mut pair, mut service) =
            (Samples::default(), Samples::default(), Samples::default());
        // The session is live, and connections are open.
        for _ in 0..20 {
            peer.put(b"floor", b"value").await?;
            lock.acquire().await?.release().await?;
        }
        for _ in 0..PAIRS {
            let start = Instant::now();
            peer.put(b"floor", b"value").await?;
            put.push(start.elapsed());
        }
        let hopped = over_the_io_thread(endpoint.clone()).await?;
        let before = entries()?;
        for _ in 0..PAIRS {
            let start = Instant::now();
            let guard = lock.acquire().await?;
            guard.release().await?;
            pair.push(start.elapsed());
        }
        let entries = entries()? - before;
        for _ in 0..SERVICE_PAIRS {
            let start = Instant::now();
            peer.lock_service_pair(b"service").await?;
            service.push(start.elapsed());
        }
        round.record("raft entries of a pair", entries / PAIRS as f64);
        for (name, samples) in [
            ("raw put", put),
            ("raw put over the I/O thread", hopped),
            ("ours", pair),
            ("Lock service", service),
        ] {
            round.record(format!("{name}, us"), samples.percentile(50.0));
            round.record(format!("{name}, p99, us"), samples.percentile(99.0));
        }
        backend.close().await?;
        Ok(())
    })
}

/// Raw puts that are asked for here and sent by the lock I/O thread: what the hop costs by itself.
async fn over_the_io_thread(endpoint: String) -> Result<Samples> {
    let (mut samples, io) = (Samples::default(), lock_core::runtime::handle());
    let mut peer = io
        .spawn(async move { Peer::connect(&endpoint).await })
        .await??;
    for _ in 0..PAIRS {
        let start = Instant::now();
        peer = io
            .spawn(async move {
                peer.put(b"floor", b"value").await?;
                anyhow::Ok(peer)
            })
            .await??;
        samples.push(start.elapsed());
    }
    Ok(samples)
}
