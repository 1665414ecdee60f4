//! Servers that are silent for a while.

use std::time::Duration;

use lock_core::Released;
use lock_testkit::services::redis::RedisServer;

use crate::support::{Client, SHORT, in_background, patient};

#[test]
fn a_server_that_is_stopped_for_ten_seconds_costs_nobody_the_lock() {
    let server = RedisServer::start().unwrap();
    let (holder, other) = (Client::at(server.url()), Client::at(server.url()));
    let guard = holder.lock("a").acquire_with(&patient()).wait().unwrap();
    let queued = in_background(&other.lock("a"));
    other.until_queued("a", 1);
    server.stop().unwrap();
    // Waits stay bounded by the caller's limit, whether their connection was there before or not.
    for client in [&other, &Client::at(server.url())] {
        let in_vain = client.lock("a").try_acquire_for(SHORT).wait();
        assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    }
    let begun = in_background(&other.lock("b"));
    // sleep: the length of the outage is what is tested
    std::thread::sleep(Duration::from_secs(10));
    server.resume().unwrap();
    assert!(guard.is_held(), "{:?}", guard.loss());
    assert!(!queued.is_finished());
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    queued.join().unwrap().unwrap().release_blocking().unwrap();
    // One that began meanwhile was carried on over the next connection.
    begun.join().unwrap().unwrap().release_blocking().unwrap();
    other.until_idle("a");
}
