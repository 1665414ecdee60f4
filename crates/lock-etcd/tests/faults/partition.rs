//! Clients that are cut off from every server, and come back.

use std::time::Duration;

use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::{Client, NOT_NOW, Proxied, soon};

/// Short, and long enough for a server that is slow on a loaded machine.
const LEASE: Duration = Duration::from_secs(3);

async fn knows_before_another_gets_in(cut_off: fn(&Proxied)) -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let mut config = servers.config();
    config.lease = LEASE;
    let (client, other) = (Client::with(config)?, Client::of(&servers.cluster)?);
    let held = client.acquire("a").await?;
    let waiting = other.wait_in_line("a").await?;
    // The control: as long as it reaches the server nothing is lost and nobody gets in.
    let early = tokio::time::timeout(LEASE, held.lost());
    assert!(early.await.is_err(), "lost while it reached the server");
    assert!(!waiting.is_finished());

    cut_off(&servers);
    let got = soon("the other one's turn", waiting).await???;
    assert!(!held.is_held(), "two at once");
    assert!(got.fencing_token() > held.fencing_token());

    servers.heal();
    got.release().await?;
    let again = client.acquire("a").await?;
    assert!(again.fencing_token() > held.fencing_token());
    Ok(())
}

#[tokio::test]
async fn a_holder_that_is_cut_off_knows_before_another_gets_in() -> Outcome {
    knows_before_another_gets_in(Proxied::partition).await
}

#[tokio::test]
async fn a_holder_that_hears_no_answers_knows_it_too() -> Outcome {
    // Its renewals arrive: it has to give up by itself.
    knows_before_another_gets_in(Proxied::hold_replies_back).await
}

#[tokio::test]
async fn a_slow_network_is_no_loss() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let mut config = servers.config();
    config.lease = LEASE;
    let client = Client::with(config)?;
    servers.delay(Duration::from_millis(50));
    let held = client.acquire("a").await?;
    let early = tokio::time::timeout(LEASE, held.lost());
    assert!(early.await.is_err(), "lost by a delay");
    // The control: answers that come after the lease has ended are none.
    servers.delay(LEASE);
    soon("the loss", held.lost()).await?;
    Ok(())
}

#[tokio::test]
async fn a_short_partition_is_no_loss() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let client = Client::with(servers.config())?;
    let held = client.acquire("a").await?;
    servers.partition();
    // The control: nothing gets through.
    assert!(!client.acquires("b", NOT_NOW).await?);
    servers.heal();
    client.acquire("c").await?.release().await?;
    assert!(held.is_held());
    Ok(())
}

#[tokio::test]
async fn a_waiter_that_was_cut_off_gets_its_turn() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let mut config = servers.config();
    config.lease = LEASE;
    let (cut_off, other) = (Client::with(config)?, Client::of(&servers.cluster)?);
    for longer_than_the_lease in [false, true] {
        let held = other.acquire("a").await?;
        let waiting = cut_off.wait_in_line("a").await?;
        servers.partition();
        if longer_than_the_lease {
            // sleep: the lease ends by the server's clock
            tokio::time::sleep(LEASE + LEASE / 2).await;
        }
        held.release().await?;
        // Whoever is cut off does not stand in the way for longer than its lease.
        other.acquire("a").await?.release().await?;
        // The control: cut off it cannot have got it.
        assert!(!waiting.is_finished());
        servers.heal();
        soon("the waiter's turn", waiting)
            .await???
            .release()
            .await?;
    }
    Ok(())
}
