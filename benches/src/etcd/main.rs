//! `cargo xtask bench etcd`: ours against raw writes, the server's Lock service and the recipe of
//! the reference clients, on servers that the bench starts.

#![expect(
    clippy::print_stdout,
    reason = "printing what was measured is a bench's purpose"
)]

mod crowd;
mod dropped;
mod handover;
mod ours;
mod outage;
mod peer;
mod uncontended;
mod wire;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use lock_benches::{Session, role};
use lock_testkit::services::etcd::EtcdCluster;
use tokio::runtime::Runtime;

/// What every section measures with: servers, and a runtime for callers.
struct Bench {
    runtime: Runtime,
    one: EtcdCluster,
    three: EtcdCluster,
}

fn main() -> Result<ExitCode> {
    if let Some((name, arguments)) = role() {
        return crowd::play(&name, &arguments);
    }
    let mut session = Session::start("etcd")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bench = Bench {
        runtime,
        one: started(EtcdCluster::single())?,
        three: started(EtcdCluster::of_three())?,
    };
    bench.uncontended(&mut session)?;
    bench.handover(&mut session)?;
    bench.crowd(&mut session)?;
    bench.dropped(&mut session)?;
    bench.one_endpoint_dead(&mut session)?;
    bench.leader_killed(&mut session)?;
    Ok(session.finish())
}

/// A failure of the testkit is no `Error` of its own.
fn started<T>(outcome: lock_testkit::Outcome<T>) -> Result<T> {
    outcome.map_err(|failure| anyhow!("{failure}"))
}
