//! A process that is stopped for longer than its lease and goes on as if nothing had happened, and
//! one that dies with all it has.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lock_etcd::{EtcdConfig, EtcdGuard as _, EtcdOutcome};
use lock_testkit::services::etcd::EtcdCluster;
use lock_testkit::{Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Client, eventually, patient};

const WRITER: &str = "processes::a_writer_that_never_looks_at_its_guard";
const HOLDER: &str = "processes::a_holder_of_many";
/// Set for the second process: the endpoint.
const ENDPOINT: &str = "LOCK_ETCD_ENDPOINT";
const MANY: usize = 10_000;
const LEASE: Duration = Duration::from_secs(2);

/// A second process. Killed on drop.
struct Second(Child);

impl Second {
    fn start(test: &str, cluster: &EtcdCluster) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env(ENDPOINT, &cluster.endpoints()[0])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// What it says after this word, once it does.
    fn says(&mut self, word: &str) -> Outcome<String> {
        let missing = || Failure::new(format!("it never said `{word}`"));
        let output = self.0.stdout.take().ok_or_else(missing)?;
        for line in BufReader::new(output).lines() {
            if let Some((_, said)) = line?.split_once(word) {
                return Ok(said.to_owned());
            }
        }
        Err(missing())
    }
}

impl Drop for Second {
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
    let mut writer = Second::start(WRITER, &cluster)?;
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
    let reason = tokio::task::spawn_blocking(move || writer.says("lost: ")).await??;
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

#[tokio::test]
async fn a_process_that_dies_with_many_locks_frees_them_all_at_once() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let mut holder = Second::start(HOLDER, &cluster)?;
    let (mut holder, said) = tokio::task::spawn_blocking(move || {
        let said = holder.says("holds ");
        (holder, said)
    })
    .await?;
    assert_eq!(said?, MANY.to_string());
    // The control: as long as it lives they stay, for longer than their lease.
    // sleep: the lease would end by the server's clock
    tokio::time::sleep(LEASE * 2).await;
    assert!(cluster.keys("locks/locks/")?.len() >= MANY);
    holder.0.kill()?;
    eventually("an empty store", async || {
        Ok(cluster.keys("locks/locks/")?.is_empty())
    })
    .await?;
    Client::of(&cluster)?.acquire("0").await?.release().await?;
    Ok(())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the first process reads it")]
#[ignore = "started by a_process_that_dies_with_many_locks_frees_them_all_at_once"]
async fn a_holder_of_many() -> Outcome {
    // Started by hand it has nothing to hold.
    let Ok(endpoint) = std::env::var(ENDPOINT) else {
        return Ok(());
    };
    let mut config = patient(vec![endpoint]);
    config.lease = LEASE;
    let client = Client::with(config)?;
    let mut held = Vec::new();
    for first in (0..MANY).step_by(500) {
        let mut asking = tokio::task::JoinSet::new();
        for number in first..first + 500 {
            let lock = client.lock(&number.to_string())?;
            asking.spawn(async move { lock.acquire().await });
        }
        while let Some(granted) = asking.join_next().await {
            held.push(granted??);
        }
    }
    println!("holds {}", held.len());
    std::future::pending().await
}
