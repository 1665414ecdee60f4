//! Servers that refuse, each told precisely or survived.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{AcquireOptions, ErrorKind};
use lock_redis::{Protocol, RedisConfig, Topology};
use lock_testkit::services::redis::{RedisCluster, RedisOptions, RedisServer};
use support::{acquire, lock, refusal, works};

/// The rights of the README.
const RIGHTS: &str = "~lock:* &lock:* +evalsha +eval +time +hmget +hget +hset +hdel +hkeys +zadd +zrem \
                      +zscore +zcard +zrange +zrangebyscore +zpopmin +sadd +sismember +bitpos \
                      +setbit +pexpire +del +publish +subscribe +scan";

fn server(options: RedisOptions) -> RedisServer {
    RedisServer::start_with(options).unwrap()
}

fn with_password(server: &RedisServer, user: &str, password: &str) -> RedisConfig {
    RedisConfig::at(
        server
            .url()
            .replace("://", &format!("://{user}:{password}@")),
    )
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    drop(server);
    let started = Instant::now();
    let error = refusal(RedisConfig::at(url));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(
        error.message().contains("refused the connection"),
        "{error}"
    );
    let took = Instant::now().saturating_duration_since(started);
    assert!(took < support::SOON, "told only after {took:?}");
}

#[test]
fn a_wrong_password_is_a_refused_right() {
    let server = server(RedisOptions::default().with_password("right"));
    for config in [
        with_password(&server, "", "hunter2"),
        with_password(&server, "hunter2", "hunter2"),
        RedisConfig::at(server.url()),
    ] {
        let error = refusal(config);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    works(with_password(&server, "", "right"));
    let mut separate = RedisConfig::at(server.url());
    separate.password = Some("right".into());
    works(separate);
}

#[test]
fn the_documented_rights_are_enough() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(RIGHTS), "the README tells other rights");
    let rule = format!("worker on >hunter2 {RIGHTS}");
    let server = server(RedisOptions::default().with_user(&rule));
    let config = with_password(&server, "worker", "hunter2");
    works(config.clone());
    let (first, second) = (lock(config.clone(), "b"), lock(config, "b"));
    let guard = acquire(&first).unwrap();
    let waiting = std::thread::spawn(move || acquire(&second).map(drop));
    lock_core::block_on(async {
        while first
            .backend()
            .inspect(lock_core::InspectQuery::namespace(""))
            .await
            .unwrap()
            .keys[0]
            .waiters
            .is_empty()
        {}
    });
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_missing_right_is_named() {
    for (missing, told) in [
        ("+hset ", "hset"),
        ("+evalsha ", "evalsha"),
        ("+subscribe", "subscribe"),
    ] {
        let rule = format!("worker on >hunter2 {}", RIGHTS.replace(missing, ""));
        let server = server(RedisOptions::default().with_user(&rule));
        let error = refusal(with_password(&server, "worker", "hunter2"));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let hidden = error.message().contains("can't run this command");
        assert!(hidden || error.message().contains(told), "{error}");
    }
}

#[test]
fn a_replica_is_refused() {
    let (master, replica) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    replica.replicate(master.port()).unwrap();
    let error = refusal(RedisConfig::at(replica.url()));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("read-only replica"), "{error}");
}

#[test]
fn want_of_memory_is_told_and_passes() {
    let server = RedisServer::start().unwrap();
    let held = lock(RedisConfig::at(server.url()), "held");
    let guard = acquire(&held).unwrap();
    server.query::<()>("CONFIG SET maxmemory 1").unwrap();
    let error = refusal(RedisConfig::at(server.url()));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("out of memory"), "{error}");
    // What frees memory is carried out all the same.
    guard.release_blocking().unwrap();
    server.query::<()>("CONFIG SET maxmemory 0").unwrap();
    works(RedisConfig::at(server.url()));
}

#[test]
fn a_busy_script_is_waited_for() {
    let server = RedisServer::start().unwrap();
    server
        .query::<()>("CONFIG SET busy-reply-threshold 20")
        .unwrap();
    let lock = lock(RedisConfig::at(server.url()), "a");
    acquire(&lock).unwrap().release_blocking().unwrap();
    let mut connection = server.connect().unwrap();
    let looping = std::thread::spawn(move || {
        let mut script = redis::cmd("EVAL");
        script.arg("while true do end").arg(0);
        script.query::<()>(&mut connection)
    });
    let wait = |limit: u64| {
        let options = AcquireOptions::new().wait_limit(Duration::from_millis(limit));
        lock.acquire_with(&options).wait()
    };
    let busy = || server.query::<()>("PING").is_err();
    while !busy() {}
    assert_eq!(wait(300).unwrap_err().kind(), ErrorKind::Timeout);
    server.query::<()>("SCRIPT KILL").unwrap();
    assert!(looping.join().unwrap().is_err());
    acquire(&lock).unwrap().release_blocking().unwrap();
}

#[test]
fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start().unwrap();
    let lock = lock(RedisConfig::at(server.url()), "a");
    for _ in 0..3 {
        let guard = acquire(&lock).unwrap();
        server.forget_scripts().unwrap();
        guard.release_blocking().unwrap();
        server.forget_scripts().unwrap();
    }
}

#[test]
fn data_of_another_type_in_our_place_is_told() {
    let server = RedisServer::start().unwrap();
    server.query::<()>("SET lock:{a} mine").unwrap();
    let error = refusal(RedisConfig::at(server.url()));
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.message().contains("another type"), "{error}");
    assert_eq!(server.query::<String>("GET lock:{a}").unwrap(), "mine");
}

#[test]
fn a_server_that_is_stopped_for_a_while_is_survived() {
    let server = RedisServer::start().unwrap();
    let (held, other) = (
        lock(RedisConfig::at(server.url()), "held"),
        lock(RedisConfig::at(server.url()), "other"),
    );
    let guard = acquire(&held).unwrap();
    acquire(&other).unwrap().release_blocking().unwrap();
    server.stop().unwrap();
    // A wait is bounded by its own limit, not by the server.
    let limit = Duration::from_millis(500);
    let started = Instant::now();
    let options = AcquireOptions::new().wait_limit(limit);
    let error = other.acquire_with(&options).wait().unwrap_err();
    let took = Instant::now().saturating_duration_since(started);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        took < limit + Duration::from_secs(2),
        "told only after {took:?}"
    );
    let pending = std::thread::spawn(move || acquire(&other).map(|guard| guard.release_blocking()));
    // sleep: longer than the connection is trusted
    std::thread::sleep(Duration::from_secs(5));
    server.resume().unwrap();
    pending.join().unwrap().unwrap().unwrap();
    assert!(guard.is_held(), "{:?}", guard.loss());
    guard.release_blocking().unwrap();
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

    let lock = lock(RedisConfig::cluster(cluster.urls()), "a");
    let slot = cluster.slot_of("lock:{a}").unwrap();
    let from = cluster.first_owner_of(slot);
    let to = (from + 1) % 3;
    let guard = acquire(&lock).unwrap();
    cluster.begin_move(slot, from, to).unwrap();
    // ASK: the keys are there already, the slot is not.
    guard.release_blocking().unwrap();
    let guard = acquire(&lock).unwrap();
    cluster.end_move(slot, to).unwrap();
    // MOVED.
    assert!(lock.try_acquire().wait().unwrap().is_none());
    guard.release_blocking().unwrap();
    acquire(&lock).unwrap().release_blocking().unwrap();
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused() {
    let server = server(RedisOptions::default().with_tls());
    let url = server.tls_url().unwrap();
    let error = refusal(RedisConfig::at(url.clone()));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("TLS"), "{error}");
    let mut trusting = RedisConfig::at(url);
    trusting.tls.ca = Some(server.certificates().unwrap().authority());
    works(trusting.clone());
    trusting.tls.ca = Some("/nowhere/ca.pem".into());
    let error = refusal(trusting);
    assert!(error.message().contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn a_socket_and_a_database_number_are_taken() {
    let server = RedisServer::start().unwrap();
    works(RedisConfig::at(server.socket_url()));
    let (zero, three) = (
        lock(RedisConfig::at(server.url()), "a"),
        lock(RedisConfig::at(format!("{}3", server.url())), "a"),
    );
    let guard = acquire(&zero).unwrap();
    let other = three.try_acquire().wait().unwrap();
    assert!(other.is_some(), "another database is another place");
    drop((guard, other));
    let error = refusal(RedisConfig::at(format!("{}99", server.url())));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[test]
fn a_second_connection_brings_pushes_where_the_first_cannot() {
    let server = RedisServer::start().unwrap();
    let mut config = RedisConfig::at(server.url());
    config.protocol = Protocol::Resp2;
    let (first, second) = (lock(config.clone(), "a"), lock(config, "a"));
    let guard = acquire(&first).unwrap();
    let waiting = std::thread::spawn(move || acquire(&second).map(drop));
    while server.query::<u64>("ZCARD lock:{a}:w").unwrap() == 0 {}
    let started = Instant::now();
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap();
    // The safety net would have come only when the lease ends.
    let took = Instant::now().saturating_duration_since(started);
    assert!(took < Duration::from_secs(5), "let in only after {took:?}");
}

#[test]
fn replicas_must_have_a_grant_where_that_is_asked_for() {
    let (master, replica) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    let mut config = RedisConfig::at(master.url());
    config.replicas = 1;
    let error = refusal(config.clone());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("0 of 1 replicas"), "{error}");
    // It was given back.
    works(RedisConfig::at(master.url()));
    replica.replicate(master.port()).unwrap();
    works(config);
}

#[test]
fn a_quarantine_holds_grants_back_after_a_start() {
    let server = RedisServer::start().unwrap();
    let mut config = RedisConfig::at(server.url());
    config.quarantine = Some(Duration::from_secs(3));
    let lock = lock(config, "a");
    let error = lock.try_acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("just started"), "{error}");
    acquire(&lock).unwrap().release_blocking().unwrap();
    let uptime: u64 = server.info("uptime_in_seconds").unwrap().parse().unwrap();
    assert!(uptime >= 2, "granted {uptime} s after the start");
}
