//! A cluster whose leader is lost or frozen, or that has no majority.

use std::time::Duration;

use lock_core::{ErrorKind, LockGuard};
use lock_etcd::EtcdConfig;
use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::{Client, NEVER, NOT_NOW, SOON, patient, soon};

async fn hold_many(client: &Client) -> Outcome<Vec<LockGuard>> {
    let mut held = Vec::new();
    for number in 0..20 {
        held.push(client.acquire(&format!("held/{number}")).await?);
    }
    Ok(held)
}

#[tokio::test]
async fn locks_outlive_their_leader_and_tokens_rise_on() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    let client = Client::of(&cluster)?;
    let held = hold_many(&client).await?;
    let leader = cluster.leader()?;
    cluster.nodes()[leader].kill()?;
    let new = client.acquire("new").await?;
    assert!(held.iter().all(LockGuard::is_held));
    assert!(
        held.iter()
            .all(|guard| guard.fencing_token() < new.fencing_token())
    );
    let stranger = Client::of(&cluster)?;
    for guard in &held {
        let lock = stranger.lock(guard.key().name())?;
        assert!(
            lock.try_acquire().await?.is_none(),
            "{} was granted twice",
            guard.key()
        );
    }
    // The control: who knows only the leader that is gone gets nothing.
    let mut only = EtcdConfig::with_endpoints([cluster.endpoints().remove(leader)]);
    only.patience = Duration::from_millis(300);
    assert!(!Client::with(only)?.acquires("other", NOT_NOW).await?);
    Ok(())
}

/// Freezes the leader for longer than the lease. Whether a lock was granted meanwhile, `within` a while.
async fn frozen(cluster: &EtcdCluster, config: EtcdConfig, within: Duration) -> Outcome<bool> {
    let lease = config.lease;
    let client = Client::with(config)?;
    let held = hold_many(&client).await?;
    let leader = cluster.leader()?;
    cluster.nodes()[leader].stop()?;
    let granted = client.acquires("meanwhile", within).await?;
    // sleep: the lease ends by the server's clock
    tokio::time::sleep(lease).await;
    cluster.nodes()[leader].resume()?;

    // A server with a known fault revokes leases that were renewed elsewhere. Then the loss is told
    // before anybody else gets in.
    let stranger = Client::of(cluster)?;
    for guard in held {
        let taken = stranger.lock(guard.key().name())?.try_acquire().await?;
        if let Some(taken) = taken {
            assert!(taken.fencing_token() > guard.fencing_token());
            soon("the loss of what somebody else got", guard.lost()).await?;
        }
    }
    Ok(granted)
}

#[tokio::test]
async fn a_frozen_leader_holds_nobody_up() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    let mut config = patient(cluster.endpoints());
    config.lease = Duration::from_secs(4);
    config.request_timeout = Duration::from_secs(1);
    assert!(frozen(&cluster, config.clone(), SOON).await?);
    // The control: with nothing but the leader there is nowhere to go.
    config.endpoints = vec![cluster.endpoints().remove(cluster.leader()?)];
    config.request_timeout = NEVER;
    assert!(!frozen(&cluster, config, NOT_NOW).await?);
    Ok(())
}

#[tokio::test]
async fn without_a_majority_holders_hear_of_their_loss_and_others_of_the_outage() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    let mut config = EtcdConfig::with_endpoints(cluster.endpoints());
    config.lease = Duration::from_secs(5);
    config.patience = Duration::from_millis(500);
    let client = Client::with(config.clone())?;
    let held = client.acquire("held").await?;
    // The control: with a majority nothing is lost, for longer than it takes without one.
    let first = (cluster.leader()? + 1) % 3;
    cluster.nodes()[first].kill()?;
    let early = tokio::time::timeout(config.lease, held.lost());
    assert!(early.await.is_err(), "lost with a majority");

    cluster.nodes()[(first + 1) % 3].kill()?;
    let (kind, said) = client.refusal("new").await?;
    assert_eq!(kind, ErrorKind::Unavailable, "{said}");
    soon("the loss", held.lost()).await?;

    cluster.start_node(first)?;
    let again = Client::of(&cluster)?.acquire("held").await?;
    assert!(again.fencing_token() > held.fencing_token());
    Ok(())
}
