//! What is there of a lock that nobody else uses: a stream, which whoever comes in the way replaces.

use std::time::{Duration, Instant};

use lock_core::{FencingNumber, LockGuard, Released};
use lock_testkit::services::redis::RedisServer;

use crate::support::{Client, LEASE, SHORT, in_background, patient};

fn taken(client: &Client) -> (LockGuard, FencingNumber) {
    let guard = client.lock("a").acquire_with(&patient()).wait().unwrap();
    let number = guard.fencing_token().unwrap().number();
    (guard, number)
}

fn is_stream(server: &RedisServer) -> bool {
    server.query::<String>("TYPE lock:{a}").unwrap() == "stream"
}

/// How long the key lives without being used; negative if for ever.
fn life(server: &RedisServer) -> i64 {
    server.query("TTL lock:{a}").unwrap()
}

/// The time of an entry that the server makes now.
fn milliseconds(server: &RedisServer) -> u64 {
    let (seconds, _): (u64, u64) = server.query("TIME").unwrap();
    seconds * 1000
}

#[test]
fn a_lock_is_a_stream_again_once_nobody_contends() {
    let server = RedisServer::start().unwrap();
    let (first, second) = (Client::at(server.url()), Client::at(server.url()));
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let (guard, number) = taken(&first);
        assert!(is_stream(&server));
        numbers.push(number);
        let queued = in_background(&second.lock("a"));
        first.until_queued("a", 1);
        assert!(!is_stream(&server));
        assert_eq!(guard.release_blocking().unwrap(), Released::Released);
        let guard = queued.join().unwrap().unwrap();
        numbers.push(guard.fencing_token().unwrap().number());
        assert_eq!(guard.release_blocking().unwrap(), Released::Released);
        assert!(is_stream(&server));
        assert!(life(&server) >= 600, "{}", life(&server));
        let (guard, number) = taken(&Client::at(server.url()));
        numbers.push(number);
        assert_eq!(guard.release_blocking().unwrap(), Released::Released);
        // sleep: a client remembers for a second that a lock is contended
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn a_held_key_never_ends_before_its_lease() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    client.passes("a");
    server.query::<()>("PEXPIRE lock:{a} 5000").unwrap();
    let (guard, _) = taken(&client);
    assert!(life(&server) >= 600, "{}", life(&server));
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    let hour = Duration::from_secs(3_600);
    let long = client.lock("a").acquire_with(&patient().ttl(hour)).wait();
    assert!(life(&server) >= 4_200, "{}", life(&server));
    drop(long.unwrap());
}

#[test]
fn a_stream_that_is_gone_is_made_anew() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    client.passes("a");
    assert!(life(&server) >= 600, "{}", life(&server));
    client.passes("a");
    server.query::<()>("DEL lock:{a}").unwrap();
    client.passes("a");
    client.passes("a");
    assert!(life(&server) >= 600, "{}", life(&server));
}

#[test]
fn numbers_rise_although_the_clock_was_set_back() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    client.passes("a");
    // What millions of grants within a millisecond that is still to come leave behind.
    let ahead = milliseconds(&server) + 2_000;
    server
        .query::<()>(&format!("XADD lock:{{a}} MAXLEN 0 {ahead}-5000000 p -"))
        .unwrap();
    let mut numbers = Vec::new();
    for _ in 0..6 {
        let (guard, number) = taken(&client);
        numbers.push(number);
        assert_eq!(guard.release_blocking().unwrap(), Released::Released);
        // sleep: until the clock has caught up, and the client has forgotten that it asked in full
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// One saw that it is not alone, and died before it asked in full.
#[test]
fn an_entry_whose_process_died_ends_with_its_lease() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    let (guard, _) = taken(&client);
    let lease = LEASE.as_millis();
    let party = format!("00000000000000000000000000000001 x 1 1 0 {lease} 0 lock:c:1 - nowhere");
    let mut add = redis::cmd("XADD");
    add.arg("lock:{a}").arg("*").arg("p").arg(party);
    add.query::<()>(&mut server.connect().unwrap()).unwrap();
    let added = Instant::now();
    // The first one holds still, and nobody thinks otherwise.
    let in_vain = Client::at(server.url()).lock("a").try_acquire().wait();
    assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    // Whoever made a hash of the stream has taken the entry out.
    client.passes("a");
    assert!(added.elapsed() < LEASE);
    // sleep: a client remembers for a second that a lock is contended
    std::thread::sleep(Duration::from_millis(1_100));
    let (guard, _) = taken(&client);
    add.query::<()>(&mut server.connect().unwrap()).unwrap();
    let added = Instant::now();
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    let in_vain = client.lock("a").try_acquire_for(SHORT).wait();
    assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    client.passes("a");
    assert!(added.elapsed() >= LEASE);
}
