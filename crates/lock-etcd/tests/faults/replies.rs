//! Requests that are carried out, and whose answers are lost.

use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, InspectQuery};
use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::{Client, Proxied, eventually, soon};

async fn stands(cluster: &EtcdCluster, many: usize) -> Outcome {
    let found = async || Ok(cluster.keys("locks/locks/")?.len() == many);
    eventually("the records of what was asked", found).await
}

#[tokio::test]
async fn a_grant_whose_answer_is_lost_is_found() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let client = Client::with(servers.config())?;
    client.acquire("warm").await?.release().await?;
    servers.hold_replies_back();
    let pending = tokio::spawn({
        let client = client.clone();
        async move { client.acquire("a").await }
    });
    stands(&servers.cluster, 1).await?;
    servers.cut();
    servers.heal();
    let found = soon("the grant", pending).await???;
    assert!(found.is_held());
    assert_eq!(servers.cluster.keys("locks/locks/")?.len(), 1);
    // The control: it was no second grant, for somebody else gets none.
    let other = Client::of(&servers.cluster)?;
    assert!(other.lock("a")?.try_acquire().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_grant_that_was_given_up_before_its_answer_came_is_cleared() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let client = Client::with(servers.config())?;
    client.acquire("warm").await?.release().await?;
    servers.hold_replies_back();
    let lock = client.lock("a")?;
    let options = AcquireOptions::new().wait_limit(Duration::from_millis(200));
    let given_up = lock.acquire_with(&options).await.unwrap_err();
    assert_eq!(given_up.kind(), ErrorKind::Timeout, "{given_up}");
    // The control: as long as nothing gets through, it stands there.
    stands(&servers.cluster, 1).await?;
    servers.cut();
    servers.heal();
    stands(&servers.cluster, 0).await?;
    eventually("nothing is owed", async || {
        let page = client.0.inspect(InspectQuery::key(lock.key().clone()));
        Ok(page.await?.keys.iter().all(|key| key.debts.is_empty()))
    })
    .await
}

#[tokio::test]
async fn a_release_whose_answer_is_lost_is_indeterminate_and_done() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let client = Client::with(servers.config())?;
    let held = client.acquire("a").await?;
    servers.hold_replies_back();
    let release = tokio::spawn(held.release());
    stands(&servers.cluster, 0).await?;
    servers.cut();
    servers.heal();
    let open = soon("an answer", release).await??.unwrap_err();
    assert_eq!(open.kind(), ErrorKind::Indeterminate, "{open}");
    // The control: with its answer, a release is known to be done.
    let again = client.acquire("a").await?;
    assert_eq!(again.release().await?, lock_core::Released::Released);
    Ok(())
}
