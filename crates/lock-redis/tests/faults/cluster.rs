//! Slots of a cluster that move from one master to another.

use lock_core::{ErrorKind, Released};
use lock_redis::{RedisConfig, Topology};
use lock_testkit::services::redis::{RedisCluster, RedisServer};

use crate::support::{Client, in_background, patient, refusal};

#[test]
fn locks_move_with_their_slot() {
    let cluster = RedisCluster::start().unwrap();
    let config = || RedisConfig::cluster(cluster.urls());
    let (near, far) = (Client::new(config()), Client::new(config()));
    // One that learns the map and then asks nothing until the slot has moved.
    let outdated = Client::new(config());
    assert!(outdated.is_idle("moving"));
    let slot = cluster.slot_of("{moving}").unwrap();
    let from = cluster.first_owner_of(slot);
    let to = (from + 1) % 3;
    let held = near.lock("moving").acquire_with(&patient()).wait().unwrap();
    let waiting = in_background(&far.lock("moving"));
    near.until_queued("moving", 1);

    cluster.begin_move(slot, from, to).unwrap();
    // The fault is real: its keys are on the other master, and the first one says so.
    let asked = cluster.masters()[from].query::<String>("TYPE lock:{moving}");
    let asked = asked.unwrap_err().message().to_uppercase();
    assert!(asked.contains("ASK"), "{asked}");
    // Scripts of several keys, of which some are not there, are answered by neither master now.
    let releasing = std::thread::spawn(move || held.release_blocking());
    cluster.end_move(slot, to).unwrap();
    assert_eq!(releasing.join().unwrap().unwrap(), Released::Released);
    let second = waiting.join().unwrap().unwrap();

    let moved = cluster.masters()[from].query::<String>("TYPE lock:{moving}");
    assert!(
        moved
            .unwrap_err()
            .message()
            .to_uppercase()
            .contains("MOVED")
    );
    let report = outdated.report("moving").unwrap();
    assert_eq!(report.holders.len(), 1, "{report:?}");
    let waiting = in_background(&near.lock("moving"));
    near.until_queued("moving", 1);
    assert_eq!(second.release_blocking().unwrap(), Released::Released);
    let third = waiting.join().unwrap().unwrap();
    assert_eq!(third.release_blocking().unwrap(), Released::Released);
    near.until_idle("moving");
}

#[test]
fn a_master_that_is_gone_stops_its_slots_only() {
    let cluster = RedisCluster::start().unwrap();
    for master in cluster.masters() {
        let full = "CONFIG SET cluster-require-full-coverage no";
        master.query::<()>(full).unwrap();
    }
    let client = Client::new(RedisConfig::cluster(cluster.urls()));
    let names: Vec<String> = (0..30).map(|number| format!("key-{number}")).collect();
    let owner = |name: &str| {
        let slot = cluster.slot_of(&format!("{{{name}}}")).unwrap();
        cluster.first_owner_of(slot)
    };
    let gone = 2;
    let (lost, kept): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| owner(name) == gone);
    assert!(!lost.is_empty() && !kept.is_empty());
    for name in &names {
        client.passes(name);
    }
    cluster.masters()[gone].kill().unwrap();
    let limit = std::time::Duration::from_millis(200);
    let in_vain = client.lock(lost[0]).try_acquire_for(limit).wait();
    assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    for name in kept {
        client.passes(name);
    }
    cluster.masters()[gone].start_again().unwrap();
    client.passes(lost[0]);
}

#[test]
fn a_cluster_is_told_from_a_server_and_moves_are_followed() {
    let cluster = RedisCluster::start().unwrap();
    let error = refusal(RedisConfig::at(cluster.urls().remove(0)));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error.message().contains("topology = \"cluster\""),
        "{error}"
    );
    let server = RedisServer::start().unwrap();
    let mut config = RedisConfig::at(server.url());
    config.topology = Some(Topology::Cluster);
    assert_eq!(refusal(config).kind(), ErrorKind::InvalidConfig);

    let client = Client::new(RedisConfig::cluster(cluster.urls()));
    let lock = client.lock("a");
    let slot = cluster.slot_of("lock:{a}").unwrap();
    let from = cluster.first_owner_of(slot);
    let to = (from + 1) % 3;
    let guard = lock.acquire_with(&patient()).wait().unwrap();
    cluster.begin_move(slot, from, to).unwrap();
    // ASK: the keys are there already, the slot is not.
    guard.release_blocking().unwrap();
    let guard = lock.acquire_with(&patient()).wait().unwrap();
    cluster.end_move(slot, to).unwrap();
    // MOVED.
    assert!(lock.try_acquire().wait().unwrap().is_none());
    guard.release_blocking().unwrap();
    client.passes("a");
}
