//! A process that is stopped for longer than its lease, and goes on as if nothing had happened.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lock_etcd::{EtcdConfig, EtcdGuard as _, EtcdOutcome};
use lock_testkit::services::etcd::EtcdCluster;
use lock_testkit::{Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Client, eventually};

const WRITER: &str = "processes::a_writer_that_never_looks_at_its_guard";
/// Set for the writer: the endpoint.
const ENDPOINT: &str = "LOCK_ETCD_WRITER";
const LEASE: Duration = Duration::from_secs(2);

/// A second process. Killed on drop.
struct Writer(Child);

impl Writer {
    fn start(cluster: &EtcdCluster) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([WRITER, "--exact", "--ignored", "--nocapture"])
            .env(ENDPOINT, &cluster.endpoints()[0])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Until it says that it lost its lock.
    fn loss(&mut self) -> Outcome<String> {
        let missing = || Failure::new("the writer said nothing of a loss");
        let output = self.0.stdout.take().ok_or_else(missing)?;
        for line in BufReader::new(output).lines() {
            if let Some((_, reason)) = line?.split_once("lost: ") {
                return Ok(reason.to_owned());
            }
        }
        Err(missing())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that has ended already needs no ending.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value(cluster: &EtcdCluster, key: &str) -> Outcome<String> {
    let printed = cluster.control(&["get", key, "--print-value-only"])?;
    Ok(printed.trim().to_owned())
}

#[tokio::test]
async fn a_process_stopped_past_its_lease_writes_nothing_that_is_fenced() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let mut writer = Writer::start(&cluster)?;
    eventually("the writer writes", async || {
        Ok(value(&cluster, "fenced")? == "writer" && value(&cluster, "plain")? == "writer")
    })
    .await?;
    writer.signal(Signal::STOP)?;
    // Granted once the lease has ended.
    let guard = Client::of(&cluster)?.acquire("a").await?;
    let committed = guard
        .fenced_transaction()?
        .put("fenced", "parent")
        .commit()
        .await?;
    assert!(matches!(committed, EtcdOutcome::Committed { .. }));
    cluster.control(&["put", "plain", "parent"])?;

    writer.signal(Signal::CONT)?;
    // The control: what is not fenced is overwritten by the process that lost its lock.
    eventually("a late write without fencing", async || {
        Ok(value(&cluster, "plain")? == "writer")
    })
    .await?;
    // That was written after a fenced write was tried.
    assert_eq!(value(&cluster, "fenced")?, "parent");
    let reason = tokio::task::spawn_blocking(move || writer.loss()).await??;
    assert!(
        reason.contains("expired") || reason.contains("holder"),
        "{reason}"
    );
    assert!(guard.is_held());
    Ok(())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the first process reads it")]
#[ignore = "started by a_process_stopped_past_its_lease_writes_nothing_that_is_fenced"]
async fn a_writer_that_never_looks_at_its_guard() -> Outcome {
    // Started by hand it has nothing to write to.
    let Ok(endpoint) = std::env::var(ENDPOINT) else {
        return Ok(());
    };
    let mut config = EtcdConfig::with_endpoints([endpoint.clone()]);
    config.lease = LEASE;
    let guard = Client::with(config)?.acquire("a").await?;
    let lost = guard.lost();
    tokio::spawn(async move { println!("lost: {}", lost.await) });
    let tool = lock_testkit::services::etcd::CONTROL_PROGRAM.find()?;
    // Until the first process kills this one.
    loop {
        // Refused once the lock is lost, which is the point.
        drop(
            guard
                .fenced_transaction()?
                .put("fenced", "writer")
                .commit()
                .await,
        );
        Command::new(&tool)
            .env("ETCDCTL_API", "3")
            .args(["put", "plain", "writer", "--endpoints", &endpoint])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        tokio::task::yield_now().await;
    }
}
