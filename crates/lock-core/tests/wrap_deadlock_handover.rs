//! Cycles that no acquire closes: a lock that changes hands does.

mod common;

use common::key;
use common::world::{S, World, X, owners};
use lock_core::{AcquireOptions, ErrorKind, Lock, block_on};

#[test]
fn a_transfer_that_closes_a_cycle_is_refused_and_changes_nothing() {
    let world = World::new();
    let [a, b, c] = owners();
    let mut given = world.hold(a, "k", X);
    let _c = world.hold(c, "l", X);
    let _b_waits = world.wait(b, "l", X);
    let _c_waits = world.wait(c, "k", X);
    // `b` would hold `k`, which `c` waits for, and wait for `l`, which `c` holds.
    let error = block_on(given.transfer_to(b)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    assert_eq!(error.key(), Some(&key("k")));
    let mut cycle: Vec<_> = error.cycle().iter().map(|edge| edge.owner).collect();
    cycle.sort_unstable();
    assert_eq!(cycle, [b, c]);
    // It still belongs to `a`: who waits for itself with it tells.
    world.refused(a, "k", X);
    drop(world.wait(b, "k", X));
    let [d] = owners();
    block_on(given.transfer_to(d)).unwrap();
    world.refused(d, "k", X);
}

#[test]
fn an_attach_that_closes_a_cycle_is_refused_and_leaves_the_lock_detached() {
    let world = World::new();
    let [a, b, c] = owners();
    let detached = block_on(world.hold(a, "k", S).detach()).unwrap();
    let _c = world.hold(c, "l", X);
    let b_waits = world.wait(b, "l", X);
    let _c_waits = world.wait(c, "k", X);
    let attach = |owner| -> Lock {
        let lock = world.lock("k");
        lock.with_options(AcquireOptions::new().owner(owner))
    };
    let error = block_on(attach(b).attach(detached.clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    assert_eq!(error.cycle().len(), 2);
    assert_eq!(world.backend.graph().held(), 1, "`l` alone");

    // Once `b` waits no more, nothing is in the way.
    drop(b_waits);
    let guard = block_on(attach(b).attach(detached)).unwrap();
    world.refused(b, "k", X);
    drop(guard);
}

#[test]
fn an_attached_permit_counts_for_as_many_as_it_is() {
    let world = World::new();
    let [a, b] = owners();
    let permits = common::world::permits;
    let detached = block_on(world.hold(a, "p", permits(2, 3)).detach()).unwrap();
    let lock = world.lock("p");
    let lock = lock.with_options(AcquireOptions::new().owner(a));
    let _p = block_on(lock.attach(detached)).unwrap();
    let _b = world.hold(b, "l", X);
    let _a_waits = world.wait(a, "l", X);
    // One of three is free, so one can be had, and two cannot.
    drop(world.hold(b, "p", permits(1, 3)));
    world.refused(b, "p", permits(2, 3));
}
