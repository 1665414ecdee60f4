//! Children of a process that holds: they have connections of their own, or none.

use std::process::{Command, Stdio};

use lock_core::Released;
use lock_testkit::fork::Forked;
use lock_testkit::services::redis::RedisServer;

use crate::support::{Client, fence, patient};

/// How many connections of this library there are: each listens for pushes.
fn connections(server: &RedisServer) -> usize {
    let list: String = server.query("CLIENT LIST TYPE pubsub").unwrap();
    list.lines().count()
}

#[test]
fn a_forked_child_locks_over_a_connection_of_its_own() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    let held = client.lock("held").acquire_with(&patient()).wait().unwrap();
    let gate = client.lock("gate").acquire_with(&patient()).wait().unwrap();
    assert_eq!(connections(&server), 1);

    let child = Forked::start(|| {
        let parents = client.lock("held").try_acquire().wait().unwrap();
        assert!(parents.is_none());
        let own = client.lock("own").acquire_with(&patient()).wait().unwrap();
        drop(client.lock("gate").acquire_with(&patient()).wait().unwrap());
        assert_eq!(own.release_blocking().unwrap(), Released::Released);
    })
    .unwrap();
    client.until_queued("gate", 1);
    assert_eq!(connections(&server), 2);
    assert!(client.lock("own").try_acquire().wait().unwrap().is_none());
    // The answers on the parent's connection are the parent's.
    assert_eq!(gate.release_blocking().unwrap(), Released::Released);
    child.join().unwrap();
    assert_eq!(connections(&server), 1);

    let first = fence(&held);
    assert!(held.is_held());
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
    let again = client.lock("held").acquire_with(&patient()).wait().unwrap();
    assert!(fence(&again) > first);
}

#[test]
fn a_started_program_inherits_no_connection() {
    let server = RedisServer::start().unwrap();
    let client = Client::at(server.url());
    let _held = client.lock("held").acquire_with(&patient()).wait().unwrap();
    let mut list = Command::new("ls");
    let listed = list.args(["-l", "/proc/self/fd"]).stdin(Stdio::null());
    let listed = listed.output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("pipe:"), "{listed}");
    assert!(!listed.contains("socket:"), "{listed}");
}
