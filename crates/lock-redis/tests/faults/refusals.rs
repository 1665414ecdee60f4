//! What a server refuses: each is survived, or a precise error.

use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Released};
use lock_redis::RedisConfig;
use lock_testkit::services::Proxy;
use lock_testkit::services::proxy::Target;
use lock_testkit::services::redis::{RedisOptions, RedisServer};

use crate::support::{Client, SHORT, in_background, patient, refusal, with_password, works};

#[test]
fn a_server_that_is_not_there_is_told() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    drop(server);
    let error = refusal(RedisConfig::at(url));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(
        error.message().contains("refused the connection"),
        "{error}"
    );
}

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
fn a_wrong_password_is_a_refused_right() {
    let options = RedisOptions::default().with_password("right");
    let server = RedisServer::start_with(options).unwrap();
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
    let client = Client::at(server.url());
    let guard = client.lock("held").acquire_with(&patient()).wait().unwrap();
    server.query::<()>("CONFIG SET maxmemory 1").unwrap();
    let error = refusal(RedisConfig::at(server.url()));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("out of memory"), "{error}");
    // What frees memory is carried out all the same.
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    server.query::<()>("CONFIG SET maxmemory 0").unwrap();
    works(RedisConfig::at(server.url()));
}

#[test]
fn a_busy_script_is_waited_for() {
    let server = RedisServer::start().unwrap();
    server
        .query::<()>("CONFIG SET busy-reply-threshold 20")
        .unwrap();
    let client = Client::at(server.url());
    client.passes("a");
    let lock = client.lock("a");
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
    client.passes("a");
}

#[test]
fn forgotten_scripts_are_sent_again_also_for_a_hand_over() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    let lock = client.lock("a");
    let first = lock.acquire_with(&patient()).wait().unwrap();
    let waiting = in_background(&lock);
    client.until_queued("a", 1);
    server.forget_scripts().unwrap();
    assert_eq!(first.release_blocking().unwrap(), Released::Released);
    let second = waiting.join().unwrap().unwrap();
    server.forget_scripts().unwrap();
    assert_eq!(second.release_blocking().unwrap(), Released::Released);
    server.forget_scripts().unwrap();
    client.passes("a");
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
