//! Threads, disks and answers that are late, and are not lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{LossReason, block_on};
use lock_etcd::EtcdGuard as _;
use lock_testkit::Outcome;
use lock_testkit::fork::Forked;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::{Client, Proxied, patient, soon};

/// Short, and long enough for a server that is slow on a loaded machine.
const LEASE: Duration = Duration::from_secs(3);

fn is_blocked(endpoints: Vec<String>) -> Outcome {
    let mut config = patient(endpoints);
    config.lease = LEASE;
    let held = Client::with(config)?.lock("a")?.acquire().wait()?;
    let over = Arc::new(AtomicBool::new(false));
    lock_core::runtime::handle().spawn({
        let over = Arc::clone(&over);
        async move {
            // sleep: what blocks the thread that renews
            std::thread::sleep(LEASE * 3);
            over.store(true, Ordering::SeqCst);
        }
    });
    while held.is_held() {
        std::thread::yield_now();
    }
    assert!(!over.load(Ordering::SeqCst), "known only once it could ask");
    assert_eq!(held.loss(), Some(LossReason::Expired));
    let write = held.fenced_transaction()?.put("late", "");
    assert!(block_on(write.commit()).is_err(), "a write after the loss");
    Ok(())
}

#[test]
fn a_blocked_io_thread_is_a_loss_that_the_clock_shows() -> Outcome {
    let cluster = EtcdCluster::single()?;
    // In a process of its own, for all locks of a process have that thread.
    Forked::start(|| is_blocked(cluster.endpoints()).unwrap())?.join()?;
    assert!(cluster.keys("late")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_blocked_runtime_of_the_caller_loses_nothing() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let mut config = patient(cluster.endpoints());
    config.lease = LEASE;
    let held = Client::with(config)?.acquire("a").await?;
    // The control is the thread that renews, above.
    // sleep: what blocks the runtime
    std::thread::sleep(LEASE * 2);
    assert!(held.is_held());
    Ok(())
}

/// Stops the server for so long, a little later again, and so on.
async fn stutter(cluster: &EtcdCluster, pause: Duration, times: u32) -> Outcome {
    let server = &cluster.nodes()[0];
    for _ in 0..times {
        server.stop()?;
        // sleep: how long a disk keeps the server waiting
        tokio::time::sleep(pause).await;
        server.resume()?;
        // sleep: until it does so again
        tokio::time::sleep(pause / 4).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_stutters_as_over_a_slow_disk_loses_nothing() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let mut config = patient(cluster.endpoints());
    config.lease = LEASE;
    let client = Client::with(config)?;
    let held = client.acquire("a").await?;
    let pairs = async {
        for _ in 0..5 {
            client.acquire("b").await?.release().await?;
        }
        Outcome::Ok(())
    };
    let (stuttered, paired) =
        tokio::join!(stutter(&cluster, Duration::from_millis(200), 30), pairs);
    stuttered?;
    paired?;
    assert!(client.lock("a")?.try_acquire().await?.is_none());
    assert!(held.is_held());
    // The control: a pause for longer than the lease is a loss.
    stutter(&cluster, LEASE * 2, 1).await?;
    soon("the loss", held.lost()).await?;
    Ok(())
}

#[tokio::test]
async fn every_other_renewal_may_go_unanswered() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let mut config = servers.config();
    config.lease = LEASE;
    let client = Client::with(config)?;
    let held = client.acquire("a").await?;
    for _ in 0..4 {
        servers.hold_replies_back();
        // sleep: one renewal falls in here, whose answer is lost with its connection
        tokio::time::sleep(LEASE / 3).await;
        servers.cut();
        servers.heal();
        // sleep: and the next one in here
        tokio::time::sleep(LEASE / 3).await;
    }
    assert!(held.is_held());
    // The control: without any answer it is lost.
    servers.hold_replies_back();
    soon("the loss", held.lost()).await?;
    Ok(())
}
