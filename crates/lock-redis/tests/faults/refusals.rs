//! What a server refuses: each is survived, or a precise error.

use std::sync::Arc;

use lock_core::{ErrorKind, Released};
use lock_redis::RedisConfig;
use lock_testkit::services::Proxy;
use lock_testkit::services::proxy::Target;
use lock_testkit::services::redis::RedisServer;

use crate::support::{Client, SHORT, patient};

#[test]
fn something_that_is_no_redis_is_an_error_and_no_hang() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Port(mute.local_addr().unwrap().port());
    let proxy = Proxy::start(target).unwrap();
    let mut config = RedisConfig::at(format!("redis://{}/", proxy.address()));
    config.connect_timeout = SHORT;
    config.response_timeout = SHORT;
    let error = Client::impatient(config)
        .lock("a")
        .acquire()
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn a_database_that_the_server_does_not_have_is_a_wrong_setting() {
    let server = RedisServer::start().unwrap();
    let config = RedisConfig::at(format!("{}99", server.url()));
    let error = Client::impatient(config)
        .lock("a")
        .acquire_with(&patient())
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[test]
fn a_server_without_memory_refuses_to_grant_and_still_takes_releases() {
    let server = RedisServer::start().unwrap();
    let client = Client::impatient(RedisConfig::at(server.url()));
    let guard = client.lock("a").acquire_with(&patient()).wait().unwrap();
    server.query::<()>("CONFIG SET maxmemory 1").unwrap();
    let error = client
        .lock("b")
        .acquire_with(&patient())
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("memory"), "{error}");
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    server.query::<()>("CONFIG SET maxmemory 0").unwrap();
    client.passes("b");
}

#[test]
fn forgotten_scripts_are_sent_again_also_for_a_hand_over() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    let lock = client.lock("a");
    let first = lock.acquire_with(&patient()).wait().unwrap();
    let waiting = crate::support::in_background(&Client(Arc::clone(&client.0)).lock("a"));
    client.until_queued("a", 1);
    server.forget_scripts().unwrap();
    assert_eq!(first.release_blocking().unwrap(), Released::Released);
    let second = waiting.join().unwrap().unwrap();
    server.forget_scripts().unwrap();
    assert_eq!(second.release_blocking().unwrap(), Released::Released);
    server.forget_scripts().unwrap();
    client.passes("a");
}
