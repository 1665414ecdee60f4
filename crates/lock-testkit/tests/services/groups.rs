//! Several servers together.

use lock_testkit::services::redis::{RedisCluster, RedisSentinel};

#[test]
fn a_cluster_sends_clients_on_while_a_slot_moves_and_after() {
    let cluster = RedisCluster::start().unwrap();
    let slot = cluster.slot_of("key").unwrap();
    let from = cluster.first_owner_of(slot);
    let to = (from + 1) % 3;
    let [old, new] = [from, to].map(|number| &cluster.masters()[number]);
    old.query::<()>("SET key 1").unwrap();
    let moved = new.query::<()>("GET key").unwrap_err();
    assert!(moved.message().to_uppercase().contains("MOVED"), "{moved}");

    cluster.begin_move(slot, from, to).unwrap();
    let ask = old.query::<()>("GET key").unwrap_err();
    assert!(ask.message().to_uppercase().contains("ASK"), "{ask}");

    cluster.end_move(slot, to).unwrap();
    assert_eq!(new.query::<u8>("GET key").unwrap(), 1);
    assert_eq!(cluster.urls().len(), 3);
}

#[test]
fn sentinels_replace_a_master_that_is_asked_to_go_and_one_that_is_killed() {
    let watched = RedisSentinel::start().unwrap();
    let first = watched.master().unwrap();
    first.query::<()>("SET key 1").unwrap();
    watched.fail_over().unwrap();
    let second = watched.master().unwrap();
    assert_ne!(first.port(), second.port());

    let killed = watched.kill_master().unwrap();
    assert_eq!(killed.port(), second.port());
    let third = watched.master().unwrap();
    assert_eq!(third.query::<u8>("GET key").unwrap(), 1);
}
