//! Servers that are not there, or do not answer.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind};
use lock_etcd::EtcdConfig;
use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::{Client, NEVER, NOT_NOW, Proxied, SOON};

/// An address where nobody listens.
fn nobody() -> Outcome<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(format!("http://{}", listener.local_addr()?))
}

fn impatient(endpoints: Vec<String>) -> EtcdConfig {
    let mut config = EtcdConfig::with_endpoints(endpoints);
    config.patience = Duration::from_millis(300);
    config
}

async fn nobody_answers(endpoints: Vec<String>) -> Outcome<bool> {
    let client = Client::with(impatient(endpoints))?;
    match client.refusal("a").await {
        Ok((kind, said)) => Ok(kind == ErrorKind::Unavailable && said.contains("http://127.0.0.1")),
        Err(_) => Ok(false),
    }
}

#[tokio::test]
async fn no_endpoint_up_is_unavailable_and_names_one() -> Outcome {
    assert!(nobody_answers(vec![nobody()?, nobody()?]).await?);
    // The control: with one that answers there is nothing to report.
    let cluster = EtcdCluster::single()?;
    assert!(!nobody_answers(vec![nobody()?, cluster.endpoints().remove(0)]).await?);
    Ok(())
}

#[tokio::test]
async fn a_wait_limit_ends_the_search_for_a_server() -> Outcome {
    let mut config = EtcdConfig::with_endpoints([nobody()?]);
    config.patience = NEVER;
    let options = AcquireOptions::new().wait_limit(Duration::from_millis(200));
    let lock = Client::with(config.clone())?.lock("a")?;
    let error = lock.acquire_with(&options).await.unwrap_err();
    let kind = error.kind();
    assert!(
        matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable),
        "{error}"
    );
    // The control: without a limit the search goes on.
    let lock = Client::with(config)?.lock("a")?;
    let endless = tokio::time::timeout(Duration::from_millis(600), lock.acquire());
    assert!(endless.await.is_err());
    Ok(())
}

/// Many acquires by many tasks; how many failed.
async fn failures(client: &Client) -> Outcome<usize> {
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let lock = client.lock(&format!("many/{task}"))?;
            Ok(tokio::spawn(async move {
                let mut failed = 0;
                for _ in 0..40 {
                    match lock.acquire().await {
                        Ok(guard) => failed += usize::from(guard.release().await.is_err()),
                        Err(_) => failed += 1,
                    }
                }
                failed
            }))
        })
        .collect::<Outcome<_>>()?;
    let mut failed = 0;
    for task in tasks {
        failed += task.await?;
    }
    Ok(failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_endpoint_of_three_is_noticed_by_nobody() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    let dead = (cluster.leader()? + 1) % 3;
    cluster.nodes()[dead].kill()?;
    // Each client starts somewhere else.
    for _ in 0..3 {
        assert_eq!(failures(&Client::of(&cluster)?).await?, 0);
    }
    // The control: whoever knows only the dead one fails.
    let only_dead = impatient(vec![cluster.endpoints().remove(dead)]);
    assert_eq!(failures(&Client::with(only_dead)?).await?, 8 * 40);
    Ok(())
}

/// Holds back two of three endpoints at a time, in turn, so that every client has to move. Whether
/// locks were granted all the time, each `within` a while.
async fn moves_on(servers: &Proxied, client: &Client, within: Duration) -> Outcome<bool> {
    let mut moved = true;
    for spared in 0..3 {
        for (number, proxy) in servers.proxies.iter().enumerate() {
            if number != spared {
                proxy.partition();
            }
        }
        moved &= client.acquires(&format!("spared/{spared}"), within).await?;
        servers.heal();
    }
    Ok(moved)
}

#[tokio::test]
async fn a_black_holed_endpoint_is_left_for_another() -> Outcome {
    let servers = Proxied::before(EtcdCluster::of_three()?)?;
    let client = Client::with(servers.config())?;
    let held = client.acquire("held").await?;
    assert!(moves_on(&servers, &client, SOON).await?);
    assert!(held.is_held());
    // The control: who waits for ever for an answer stays where it is.
    let mut trusting = servers.config();
    trusting.request_timeout = NEVER;
    let trusting = Client::with(trusting)?;
    trusting.acquire("warm").await?.release().await?;
    assert!(!moves_on(&servers, &trusting, NOT_NOW).await?);
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_is_noticed_by_nobody() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    let client = Client::of(&cluster)?;
    let held = client.acquire("held").await?;
    for number in 0..3 {
        cluster.nodes()[number].kill()?;
        client.acquire("meanwhile").await?.release().await?;
        cluster.start_node(number)?;
    }
    assert!(held.is_held());
    // The control: two at once are too many.
    cluster.nodes()[0].kill()?;
    cluster.nodes()[1].kill()?;
    assert!(!client.acquires("meanwhile", NOT_NOW).await?);
    Ok(())
}
