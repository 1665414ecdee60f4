//! Slots of a cluster that move from one master to another.

use lock_core::Released;
use lock_redis::RedisConfig;
use lock_testkit::services::redis::RedisCluster;

use crate::support::{Client, in_background, patient};

#[test]
fn locks_move_with_their_slot() {
    let cluster = RedisCluster::start().unwrap();
    let config = || RedisConfig::cluster(cluster.urls());
    let (near, far) = (Client::new(config()), Client::new(config()));
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
