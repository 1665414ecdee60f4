//! A server that is full, that forgets its history, or that lost its data.

use std::time::Duration;

use lock_core::{ErrorKind, Released};
use lock_testkit::Outcome;
use lock_testkit::services::etcd::{EtcdCluster, EtcdOptions};

use crate::support::{Client, Proxied, eventually, soon};

#[tokio::test]
async fn a_full_server_grants_nothing_new_and_gives_up_nothing_held() -> Outcome {
    let quota = 4 * 1024 * 1024;
    let cluster = EtcdCluster::start_with(1, EtcdOptions::default().with_quota(quota))?;
    let client = Client::of(&cluster)?;
    let (kept, given_back) = (client.acquire("kept").await?, client.acquire("back").await?);
    cluster.fill()?;
    let (kind, said) = client.refusal("new").await?;
    assert_eq!(kind, ErrorKind::Unavailable, "{said}");
    assert!(said.contains("space"), "{said}");
    // Giving back frees space, and renewing takes none.
    assert_eq!(given_back.release().await?, Released::Released);
    assert!(kept.is_held());

    // The control: with room it is granted.
    cluster.make_room()?;
    client.acquire("new").await?.release().await?;
    assert_eq!(kept.release().await?, Released::Released);
    Ok(())
}

#[tokio::test]
async fn a_waiter_hears_of_a_release_whose_history_is_gone() -> Outcome {
    let servers = Proxied::before(EtcdCluster::single()?)?;
    let cluster = &servers.cluster;
    let holder = Client::of(cluster)?;
    let mut config = servers.config();
    // Looking again by itself would hide a watch that is not taken up.
    config.check_again = Duration::from_secs(3600);
    let waiter = Client::with(config)?;

    let held = holder.acquire("a").await?;
    let waiting = waiter.wait_in_line("a").await?;
    let before = cluster.revision()?;
    servers.partition();
    held.release().await?;
    cluster.compact()?;
    // The control: who takes the watch up where it was is refused.
    let old = format!("--rev={before}");
    let resumed = cluster.control(&["watch", "locks", "--prefix", &old, "--command-timeout=1s"]);
    let told = resumed.unwrap_or_else(|failure| failure.message().to_owned());
    assert!(told.contains("compacted"), "{told}");

    servers.cut();
    servers.heal();
    let guard = soon("the lock", waiting).await???;
    assert!(guard.is_held());
    Ok(())
}

/// What clients of a store see when it was taken back to an earlier state by `lose`.
async fn goes_back(lose: impl FnOnce(&EtcdCluster) -> Outcome) -> Outcome {
    let cluster = EtcdCluster::single()?;
    let client = Client::of(&cluster)?;
    client.acquire("before").await?.release().await?;
    cluster.save_snapshot()?;
    let held = client.acquire("held").await?;
    for number in 0..20 {
        cluster.control(&["put", "other", &number.to_string()])?;
    }
    let last = client.acquire("last").await?;
    let old_token = last.fencing_token();
    last.release().await?;

    lose(&cluster)?;
    soon("the loss of what was held", held.lost()).await?;
    let (kind, said) = client.refusal("last").await?;
    assert_eq!(kind, ErrorKind::Backend, "{said}");
    assert!(said.contains("fencing_epoch"), "{said}");

    // The control: a client that did not see the old store is given tokens that went back.
    let stranger = Client::of(&cluster)?;
    assert!(stranger.acquire("last").await?.fencing_token() < old_token);
    Ok(())
}

#[tokio::test]
async fn wiped_data_is_an_error_for_those_who_saw_it() -> Outcome {
    goes_back(EtcdCluster::restart_empty).await
}

#[tokio::test]
async fn a_restored_snapshot_is_an_error_for_those_who_saw_more() -> Outcome {
    goes_back(EtcdCluster::restore_snapshot).await
}

/// The records with this in their name, and when each was made.
fn records(cluster: &EtcdCluster, within: &str) -> Outcome<Vec<(String, String)>> {
    let made = |name: String| {
        let printed = cluster.control(&["get", &name, "--write-out=fields"])?;
        let line = printed.lines().find(|line| line.contains("CreateRevision"));
        Ok((name, line.unwrap_or_default().to_owned()))
    };
    let names = cluster.keys("locks/locks/")?.into_iter();
    names
        .filter(|name| name.contains(within))
        .map(made)
        .collect()
}

#[tokio::test]
async fn a_waiter_whose_lease_ended_is_not_let_in_on_it() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let (holder, waiter) = (Client::of(&cluster)?, Client::of(&cluster)?);
    let held = holder.acquire("a").await?;
    let before = cluster.leases()?;
    let waiting = waiter.wait_in_line("a").await?;
    let place = || records(&cluster, "/w/");
    eventually("its place in the line", async || Ok(!place()?.is_empty())).await?;
    let first_place = place()?;
    for lease in cluster.leases()? {
        if !before.contains(&lease) {
            cluster.revoke(&lease)?;
        }
    }
    // The control: its place was gone with the lease.
    assert_ne!(place()?, first_place);

    held.release().await?;
    // Either it says that it lost its place, or it queued again: then what it holds is there.
    if let Ok(guard) = soon("an answer", waiting).await?? {
        assert!(guard.is_held());
        assert!(!records(&cluster, "/h/")?.is_empty());
        assert!(holder.lock("a")?.try_acquire().await?.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn keys_of_others_are_left_alone() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let foreign = [
        "locks/locks",
        "locks/locks/00/foreign",
        "locks/foreign",
        "locks0",
    ];
    for key in foreign {
        cluster.control(&["put", key, "foreign"])?;
    }
    let client = Client::of(&cluster)?;
    let held = client.acquire("a").await?;
    let waiting = Client::of(&cluster)?.wait_in_line("a").await?;
    held.release().await?;
    soon("the lock", waiting).await???.release().await?;
    client.0.close().await?;
    eventually("only foreign keys are left", async || {
        Ok(cluster
            .keys("locks")?
            .iter()
            .all(|key| foreign.contains(&key.as_str())))
    })
    .await?;
    // The control: all of them still are there.
    assert_eq!(cluster.keys("locks")?.len(), foreign.len());
    Ok(())
}
