//! What the configuration may say of a server.

use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind};
use lock_redis::{Protocol, RedisConfig};
use lock_testkit::services::redis::{RedisOptions, RedisServer};

use crate::support::{Client, patient, refusal, works};

#[test]
fn a_certificate_that_nobody_trusts_is_refused() {
    let server = RedisServer::start_with(RedisOptions::default().with_tls()).unwrap();
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
    let zero = Client::at(server.url());
    let three = Client::at(format!("{}3", server.url()));
    let guard = zero.lock("a").acquire_with(&patient()).wait().unwrap();
    let other = three.lock("a").try_acquire().wait().unwrap();
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
    let (first, second) = (Client::new(config.clone()), Client::new(config));
    let guard = first.lock("a").acquire_with(&patient()).wait().unwrap();
    // Without a push it would look again after ten seconds.
    let limited = AcquireOptions::new().wait_limit(Duration::from_secs(9));
    let lock = second.lock("a");
    let waiting = std::thread::spawn(move || lock.acquire_with(&limited).wait().map(drop));
    first.until_queued("a", 1);
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap();
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
    config.quarantine = Some(Duration::from_secs(5));
    let client = Client::new(config);
    let error = client.lock("a").try_acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("just started"), "{error}");
    client.passes("a");
    let uptime: u64 = server.info("uptime_in_seconds").unwrap().parse().unwrap();
    assert!(uptime >= 4, "granted {uptime} s after the start");
}
