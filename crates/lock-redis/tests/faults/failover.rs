//! Masters that are replaced: by Sentinel, and by a replica that lags behind.

use lock_core::{FencedRegister, Released};
use lock_redis::RedisConfig;
use lock_testkit::services::Proxy;
use lock_testkit::services::proxy::Target;
use lock_testkit::services::redis::{RedisSentinel, RedisServer};

use crate::support::{Client, eventually, fence, in_background, leased};

#[test]
fn locks_follow_the_master_that_the_sentinels_appoint() {
    let watched = RedisSentinel::start().unwrap();
    let config = || RedisConfig::sentinel(watched.urls(), watched.name());
    let (first, second) = (Client::new(config()), Client::new(config()));
    let guard = first.lock("a").acquire_with(&leased()).wait().unwrap();
    let mut highest = fence(&guard);
    let waiting = in_background(&second.lock("a"));
    second.until_queued("a", 1);

    // An orderly change while held and waited for.
    let old_master = watched.master().unwrap();
    watched.fail_over().unwrap();
    let new_master = watched.master().unwrap();
    // Lost at worst; never reported as another's.
    drop(guard);
    let guard = waiting.join().unwrap().unwrap();
    assert!(fence(&guard) > highest);
    highest = fence(&guard);
    drop(guard);

    // For some ten seconds the old one goes on to call itself master.
    eventually("the old master has become a replica", || {
        old_master.info("role").is_ok_and(|role| role == "slave")
    });
    let guard = second.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(fence(&guard) > highest);
    highest = fence(&guard);
    let keys = new_master.keys().unwrap();
    assert!(keys.iter().any(|key| key.contains("{a}")), "{keys:?}");
    drop(guard);

    // A crash. Whoever comes is served by the next master.
    watched.kill_master().unwrap();
    let guard = second.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(fence(&guard) > highest);
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
}

#[test]
fn tokens_do_not_go_back_when_a_lagging_replica_is_promoted() {
    let (master, replica) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    let replication = Proxy::start(Target::Port(master.port())).unwrap();
    let way = Proxy::start(Target::Port(master.port())).unwrap();
    let client = Client::at(format!("redis://{}/", way.address()));
    let lock = client.lock("a");
    // A counter, as other locks take for their fence: it shows whether the fault is real.
    let count = |server: &RedisServer| server.query::<u64>("INCR counter").unwrap();
    count(&master);
    drop(lock.acquire_with(&leased()).wait().unwrap());
    replica.replicate(replication.port()).unwrap();
    assert_eq!(replica.query::<u64>("GET counter").unwrap(), 1);

    replication.partition();
    for _ in 0..5 {
        count(&master);
        drop(lock.acquire_with(&leased()).wait().unwrap());
    }
    let stale = lock.acquire_with(&leased()).wait().unwrap();
    master.kill().unwrap();
    replication.cut();
    replica.promote().unwrap();
    way.lead_to(Target::Port(replica.port()));
    way.cut();

    // The replica knows nothing of the holder, so somebody else gets in.
    let other = Client::at(replica.url());
    let fresh = other.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(fence(&fresh) > fence(&stale), "{fresh:?} after {stale:?}");
    assert!(count(&replica) < 6, "a plain counter would have gone back");
    // The old holder hears of it, and the resource refuses it before that.
    let resource = FencedRegister::new(0);
    resource
        .write(fresh.fencing_token().unwrap(), |value| *value = 1)
        .unwrap();
    assert!(
        resource
            .write(stale.fencing_token().unwrap(), |value| *value = 2)
            .is_err()
    );
    eventually("the old holder knows", || !stale.is_held());
    assert_eq!(fresh.release_blocking().unwrap(), Released::Released);
}

#[test]
fn tokens_do_not_go_back_over_an_empty_restart() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    server.query::<()>("SET counter 7").unwrap();
    let stale = client.lock("a").acquire_with(&leased()).wait().unwrap();
    server.restart_empty().unwrap();
    assert_eq!(server.query::<u64>("INCR counter").unwrap(), 1);
    let other = Client::at(server.url());
    let fresh = other.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(fence(&fresh) > fence(&stale));
    eventually("the old holder knows", || !stale.is_held());
    assert_ne!(stale.release_blocking().ok(), Some(Released::Released));
    assert_eq!(fresh.release_blocking().unwrap(), Released::Released);
}
