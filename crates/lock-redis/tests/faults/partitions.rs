//! Networks that fall apart between a client and the server, and heal.

use lock_core::{FencedRegister, Released};
use lock_testkit::services::Proxy;
use lock_testkit::services::proxy::{Direction, Target};
use lock_testkit::services::redis::RedisServer;

use crate::support::{Client, LEASE, SHORT, eventually, fence, in_background, leased, patient};

/// A server, a client that reaches it through a proxy, and one that reaches it directly.
fn apart() -> (RedisServer, Proxy, Client, Client) {
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    let (server, proxy) = {
        let server = RedisServer::start().unwrap();
        let proxy = Proxy::start(Target::Port(server.port())).unwrap();
        (server, proxy)
    };
    let far = Client::at(format!("redis://{}/", proxy.address()));
    let near = Client::at(server.url());
    (server, proxy, far, near)
}

#[test]
fn a_holder_that_is_cut_off_knows_it_before_another_gets_in() {
    let (_server, proxy, far, near) = apart();
    let resource = FencedRegister::new("nobody");
    let cut_off = far.lock("a").acquire_with(&leased()).wait().unwrap();
    let old = cut_off.fencing_token().unwrap();
    // Without the fault nobody gets in, however long a lease is waited for.
    let early = near.lock("a").try_acquire_for(LEASE * 2).wait().unwrap();
    assert!(early.is_none() && cut_off.is_held());

    proxy.partition();
    let next = near.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(!cut_off.is_held(), "two holders at once");
    assert!(cut_off.lost().wait_for(SHORT).is_some());
    let new = next.fencing_token().unwrap();
    assert!(new > old);
    resource.write(new, |who| *who = "the next one").unwrap();
    assert!(resource.write(old, |who| *who = "the late one").is_err());

    // What was held back arrives now, and disturbs nothing.
    proxy.heal();
    assert_ne!(
        cut_off.release_blocking().ok(),
        Some(Released::Released),
        "a lost lock was reported as released"
    );
    assert!(next.is_held());
    assert_eq!(next.release_blocking().unwrap(), Released::Released);
    near.until_idle("a");
}

#[test]
fn a_waiter_that_is_cut_off_does_not_stop_those_behind_it_and_gets_in_later() {
    let (_server, proxy, far, near) = apart();
    let holder = near.lock("a").acquire_with(&leased()).wait().unwrap();
    let cut_off = in_background(&far.lock("a"));
    near.until_queued("a", 1);
    let behind = in_background(&near.lock("a"));
    near.until_queued("a", 2);
    proxy.partition();
    assert_eq!(holder.release_blocking().unwrap(), Released::Released);
    let second = behind.join().unwrap().unwrap();
    assert!(!cut_off.is_finished(), "it cannot know of a grant");
    proxy.heal();
    second.release_blocking().unwrap();
    let third = cut_off.join().unwrap().unwrap();
    third.release_blocking().unwrap();
    near.until_idle("a");
}

#[test]
fn without_a_partition_the_waiter_in_front_is_first() {
    let (_server, _proxy, far, near) = apart();
    let holder = near.lock("a").acquire_with(&leased()).wait().unwrap();
    let front = in_background(&far.lock("a"));
    near.until_queued("a", 1);
    let behind = in_background(&near.lock("a"));
    near.until_queued("a", 2);
    holder.release_blocking().unwrap();
    let first = front.join().unwrap().unwrap();
    assert!(!behind.is_finished());
    first.release_blocking().unwrap();
    drop(behind.join().unwrap().unwrap());
}

#[test]
fn an_acquire_whose_reply_is_lost_leaves_no_orphan() {
    let (server, proxy, far, near) = apart();
    // The connection is there before.
    far.passes("warm");
    proxy.black_hole(Direction::ToClient);
    let in_vain = far.lock("a").try_acquire_for(SHORT).wait();
    assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    // The fault is real: the server had granted it, unless the cleanup was faster.
    assert!(server.keys().unwrap().iter().any(|key| key.contains("{a}")));
    proxy.heal();
    // The lease would last thirty seconds.
    let guard = near.lock("a").acquire_with(&patient()).wait().unwrap();
    guard.release_blocking().unwrap();
    near.until_idle("a");
}

#[test]
fn an_acquire_that_arrives_late_grants_nothing() {
    let (_server, proxy, far, near) = apart();
    far.passes("warm");
    proxy.black_hole(Direction::ToServer);
    let in_vain = far.lock("a").try_acquire_for(SHORT).wait();
    assert!(in_vain.is_ok_and(|guard| guard.is_none()));
    assert!(near.is_idle("a"));
    proxy.heal();
    // Whatever arrives now is undone without a wait for the lease, which is thirty seconds.
    far.passes("b");
    near.until_idle("a");
    near.passes("a");
}

#[test]
fn a_release_that_arrives_late_frees_its_own_lock_only() {
    let (_server, proxy, far, near) = apart();
    let guard = far.lock("a").acquire_with(&leased()).wait().unwrap();
    let old = fence(&guard);
    proxy.black_hole(Direction::ToServer);
    drop(guard);
    let next = near.lock("a").acquire_with(&leased()).wait().unwrap();
    assert!(fence(&next) > old);
    proxy.heal();
    // The late release has arrived once a later request of the same client was answered.
    far.passes("b");
    let third = near.lock("a").try_acquire().wait().unwrap();
    assert!(third.is_none() && next.is_held());
    assert_eq!(next.release_blocking().unwrap(), Released::Released);
}

#[test]
fn a_reset_while_held_and_while_waiting_is_survived() {
    let (_server, proxy, far, near) = apart();
    let held = far.lock("held").acquire_with(&leased()).wait().unwrap();
    let holder = near.lock("a").acquire_with(&leased()).wait().unwrap();
    let waiting = in_background(&far.lock("a"));
    near.until_queued("a", 1);
    proxy.reset();
    // Renewals go on over a new connection: two leases pass.
    assert_eq!(held.lost().wait_for(LEASE * 2), None);
    holder.release_blocking().unwrap();
    drop(waiting.join().unwrap().unwrap());
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
    eventually("nothing is left", || near.is_idle("held"));
}
