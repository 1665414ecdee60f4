//! Several keys of one server are taken in one step, and given up whole.

use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Lock, acquire_all};
use lock_testkit::network::{Fate, Kind, Leg};

use super::setup::{Client, granted, joined, key, nothing_left, server, soon};

fn locks(client: &Client) -> Vec<Lock> {
    ["b", "a", "c"].map(|name| client.lock(&key(name))).to_vec()
}

#[tokio::test]
async fn a_set_that_is_free_takes_one_request() {
    let (server, options) = (server(None), AcquireOptions::new());
    let client = Client::new(&server);
    let locks = locks(&client);
    let set = soon("a set", acquire_all(&locks, &options))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.arrived(client.id(), Kind::AcquireMany), 1);
    assert_eq!(server.arrived(client.id(), Kind::Acquire), 0);
    assert_eq!(set.guards().len(), 3);
    drop(set);
    nothing_left(&server, &[&client]).await.unwrap();
}

#[tokio::test]
async fn a_contended_set_waits_for_each_in_order() {
    let (server, options) = (server(None), AcquireOptions::new());
    let (client, other) = (Client::new(&server), Client::new(&server));
    let blocker = granted("the blocker", other.lock(&key("b")).acquire())
        .await
        .unwrap();
    let locks = locks(&client);
    let short = options.clone().wait_limit(Duration::from_millis(50));
    let refused = acquire_all(&locks, &short).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Timeout);
    let waiting = tokio::spawn(async move { acquire_all(&locks, &options).await });
    drop(blocker);
    let set = soon("the set", joined(waiting)).await.unwrap().unwrap();
    drop(set);
    nothing_left(&server, &[&client, &other]).await.unwrap();
}

#[tokio::test]
async fn a_set_that_is_dropped_before_its_answer_leaves_nothing() {
    let server = server(None);
    let client = Client::new(&server);
    let locks = locks(&client);
    server.every(client.id(), Leg::Reply, Kind::AcquireMany, Fate::Lost);
    let short = AcquireOptions::new();
    let unanswered = acquire_all(&locks, &short);
    let gone = tokio::time::timeout(Duration::from_millis(100), unanswered).await;
    assert!(gone.is_err(), "no answer can have come");
    server.heal();
    nothing_left(&server, &[&client]).await.unwrap();
}
