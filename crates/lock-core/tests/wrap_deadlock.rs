//! The deadlock wrapper: what it refuses, what it lets wait, and what it forgets.

mod common;

use std::task::Poll;
use std::time::Duration;

use common::world::{S, World, X, owners, permits};
use common::{Memory, eventually, key, poll_once};
use lock_core::clock::Instant;
use lock_core::wrap::WaitGraph;
use lock_core::{AcquireOptions, LockBackend, OwnerId, Wait};

#[test]
fn an_owner_that_waits_for_itself_is_refused() {
    let world = World::new();
    let [a] = owners();
    let guard = world.hold(a, "k", X);
    let error = world.refused(a, "k", X);
    assert_eq!(error.cycle().len(), 1);
    assert_eq!(error.cycle()[0].owner, a);
    assert_eq!(error.key(), Some(&key("k")));
    assert_eq!(error.backend(), Some("memory"));
    drop(guard);

    let reading = world.hold(a, "k", S);
    world.refused(a, "k", X);
    drop(reading);
    let one = world.hold(a, "p", permits(1, 1));
    world.refused(a, "p", permits(1, 1));
    drop(one);
    world.assert_clean();
}

#[test]
fn the_acquire_that_closes_a_cycle_is_refused_before_it_is_queued() {
    for n in [2, 3, 8] {
        let world = World::new();
        let owners: Vec<_> = (0..n).map(|_| OwnerId::new()).collect();
        let name = |i: usize| format!("k{}", i % n);
        let mut guards: Vec<_> = (0..n).map(|i| world.hold(owners[i], &name(i), X)).collect();
        let mut waits: Vec<_> = (0..n - 1)
            .map(|i| world.wait(owners[i], &name(i + 1), X))
            .collect();

        let line = line!() + 1;
        let error = world.refused(owners[n - 1], &name(n), X);
        assert_eq!(world.memory.queued(), n - 1, "the refused step was polled");
        let cycle = error.cycle();
        assert_eq!(cycle.len(), n);
        for (i, edge) in cycle.iter().enumerate() {
            let at = (n - 1 + i) % n;
            assert_eq!((edge.owner, edge.mode), (owners[at], X));
            assert_eq!(edge.key, key(name(at + 1)));
        }
        let site = cycle[0].site.as_deref().unwrap();
        assert!(
            site.contains(&format!("wrap_deadlock.rs:{line}:")),
            "{site}"
        );

        // The victim gives way, and the others go on one after the other.
        drop(guards.pop());
        while let Some(mut wait) = waits.pop() {
            assert!(matches!(poll_once(&mut wait), Poll::Ready(Ok(_))));
            drop(guards.pop());
        }
        world.assert_clean();
    }
}

#[test]
fn shared_and_exclusive_mixes_are_found() {
    let world = World::new();
    let [a, b] = owners();
    let _a = world.hold(a, "k", S);
    let _b = world.hold(b, "l", X);
    let _b_waits = world.wait(b, "k", X);
    let error = world.refused(a, "l", S);
    assert_eq!(error.cycle()[0].mode, S);
    assert_eq!(error.cycle()[1].mode, X);
}

#[test]
fn waiting_behind_a_waiter_counts() {
    let world = World::new();
    let [reader, writer, late] = owners();
    let _reading = world.hold(reader, "k", S);
    let _other = world.hold(late, "l", X);
    let writing = world.wait(writer, "k", X);
    let _late = world.wait(late, "k", S);
    let error = world.refused(reader, "l", X);
    let owners: Vec<_> = error.cycle().iter().map(|edge| edge.owner).collect();
    assert_eq!(owners, [reader, late, writer]);

    // Without the writer in between nobody is in the way of the late reader.
    drop(writing);
    let _waits = world.wait(reader, "l", X);
}

#[test]
fn shared_waiters_do_not_wait_for_each_other() {
    let world = World::new();
    let [holder, first, second] = owners();
    let _held = world.hold(holder, "k", X);
    let _l = world.hold(second, "l", X);
    let _first = world.wait(first, "k", S);
    let _second = world.wait(second, "k", S);
    let _also = world.wait(first, "l", X);
}

#[test]
fn a_lower_priority_does_not_stand_in_the_way() {
    let world = World::new();
    let [holder, low, high] = owners();
    let _held = world.hold(holder, "k", S);
    let _l = world.hold(high, "l", X);
    let _low = world.wait(low, "k", X);
    let urgent = AcquireOptions::new().owner(high).priority(1);
    let mut urgent = world.lock("k").acquire_with(&urgent);
    assert!(poll_once(&mut urgent).is_pending());
    // `low` stands behind `high`, so this waits for `high` twice, and `high` for `holder` alone.
    let error = world.refused(holder, "l", X);
    assert_eq!(error.cycle().len(), 2);
}

#[test]
fn a_permit_waiter_is_stuck_only_if_too_few_holders_can_release() {
    let world = World::new();
    let [a, b, c] = owners();
    let _a = world.hold(a, "p", permits(1, 2));
    let b_holds = world.hold(b, "p", permits(1, 2));
    let _c = world.hold(c, "l", X);
    let _c_waits = world.wait(c, "p", permits(1, 2));
    let _a_waits = world.wait(a, "l", X);
    // `b` was the way out.
    let error = world.refused(b, "l", X);
    let cycle: Vec<_> = error.cycle().iter().map(|edge| edge.owner).collect();
    assert_eq!(cycle, [b, c]);
    drop(b_holds);
}

#[test]
fn a_waiter_for_several_permits_needs_several_ways_out() {
    let world = World::new();
    let [a, b, c, d] = owners();
    let _p: Vec<_> = [a, b, c].map(|o| world.hold(o, "p", permits(1, 3))).into();
    let _d = world.hold(d, "l", X);
    let _d_waits = world.wait(d, "p", permits(2, 3));
    let _a_waits = world.wait(a, "l", X);
    world.refused(b, "l", X);
    world.refused(c, "l", X);
}

#[test]
fn cycles_across_two_backends_are_found_with_one_graph() {
    let graph = WaitGraph::new();
    let one = World::around(Memory::new(), graph.clone());
    let two = World::around(Memory::new(), graph);
    let [a, b] = owners();
    let _a = one.hold(a, "k", X);
    let _b = two.hold(b, "k", X);
    let _waits = one.wait(b, "k", X);
    assert_eq!(two.refused(a, "k", X).cycle().len(), 2);
}

#[test]
fn an_owner_with_several_waits_is_stuck_only_if_all_are() {
    let world = World::new();
    let [a, b, c] = owners();
    let _a = world.hold(a, "k", X);
    let _b = world.hold(b, "l", X);
    let c_holds = world.hold(c, "m", X);
    let _a_waits = world.wait(a, "l", X);
    let _a_also = world.wait(a, "m", X);
    let b_waits = world.wait(b, "k", X);
    drop(b_waits);
    // With `m` in the same hands nothing is left that `a` could go on with.
    drop((c_holds, _a_also));
    world.refused(b, "k", X);
}

#[test]
fn a_wait_counts_until_its_deadline_has_passed() {
    let world = World::new();
    let [a, b] = owners();
    let _a = world.hold(a, "k", X);
    let _b = world.hold(b, "l", X);
    let deadline = Instant::now() + Duration::from_millis(300);
    let timed = AcquireOptions::new().owner(a).wait_until(deadline);
    let mut timed = world.lock("l").acquire_with(&timed);
    assert!(poll_once(&mut timed).is_pending());
    if !deadline.has_passed() {
        let refused = poll_once(&mut world.ask(b, "k", X));
        assert!(deadline.has_passed() || matches!(refused, Poll::Ready(Err(_))));
    }
    eventually("the deadline", || deadline.has_passed());
    let _waits = world.wait(b, "k", X);
}

#[test]
fn one_attempt_without_waiting_is_contended_not_refused() {
    let world = World::new();
    let [a] = owners();
    let _a = world.hold(a, "k", X);
    let options = AcquireOptions::new().owner(a);
    let tried = world.lock("k").try_acquire_with(&options).wait();
    assert!(tried.unwrap().is_none());
}

#[test]
fn a_wait_ends_with_its_future_and_a_hold_with_its_guard() {
    let world = World::new();
    let [a, b] = owners();
    let held = world.hold(a, "k", X);
    let waits = world.wait(b, "k", X);
    let graph = world.backend.graph();
    assert_eq!((graph.waiting(), graph.held()), (1, 1));
    drop(waits);
    assert_eq!((graph.waiting(), graph.held()), (0, 1));

    let mut waits = world.wait(b, "k", X);
    assert_eq!(
        held.release_blocking().unwrap(),
        lock_core::Released::Released
    );
    let Poll::Ready(Ok(granted)) = poll_once(&mut waits) else {
        panic!("not handed over");
    };
    assert_eq!((graph.waiting(), graph.held()), (0, 1));
    drop(granted);
    world.assert_clean();
}

#[test]
fn abandoning_an_attempt_ends_its_wait_while_the_future_lives() {
    let world = World::new();
    let [a, b] = owners();
    let _held = world.hold(a, "k", X);
    let options = AcquireOptions::new().owner(b);
    let request = options.to_request(Wait::Forever).unwrap();
    let lock_core::Step::Waiting(mut future) = world.backend.acquire(&key("k"), &request) else {
        panic!("granted");
    };
    assert_eq!(
        world.backend.graph().waiting(),
        0,
        "entered before it was polled"
    );
    assert!(poll_once(&mut future).is_pending());
    assert_eq!(world.backend.graph().waiting(), 1);
    world.backend.abandon(&key("k"), request.attempt);
    assert_eq!(world.backend.graph().waiting(), 0);
    assert_eq!(world.memory.waiters(&key("k")), 0);

    // The other way round: whoever drops the future no longer waits, ended or not.
    let request = options.to_request(Wait::Forever).unwrap();
    let lock_core::Step::Waiting(mut future) = world.backend.acquire(&key("k"), &request) else {
        panic!("granted");
    };
    assert!(poll_once(&mut future).is_pending());
    drop(future);
    assert_eq!(world.backend.graph().waiting(), 0);
}

#[test]
fn a_transfer_moves_the_hold_to_the_new_owner() {
    let world = World::new();
    let [a, b] = owners();
    let mut guard = world.hold(a, "k", X);
    lock_core::block_on(guard.transfer_to(b)).unwrap();
    let _a_waits = world.wait(a, "k", X);
    world.refused(b, "k", X);
}

#[test]
fn a_detached_lock_has_no_owner_until_it_is_attached() {
    let world = World::new();
    let [a] = owners();
    let guard = world.hold(a, "k", X);
    let detached = lock_core::block_on(guard.detach()).unwrap();
    assert_eq!(world.backend.graph().held(), 0);
    drop(world.wait(a, "k", X));
    let guard = lock_core::block_on(world.lock("k").attach(detached)).unwrap();
    assert_eq!(world.backend.graph().held(), 1);
    drop(guard);
    world.assert_clean();
}

#[test]
fn a_downgraded_hold_is_in_the_way_of_exclusive_waiters_only() {
    let world = World::new();
    let [a, b] = owners();
    let mut guard = world.hold(a, "k", X);
    lock_core::block_on(guard.downgrade()).unwrap();
    let _b = world.hold(b, "l", X);
    let _a_waits = world.wait(a, "l", X);
    drop(world.hold(b, "k", S));
    world.refused(b, "k", X);
}

#[test]
fn nobody_waits_for_a_grant_that_is_lost() {
    let world = World::around(Memory::losable(), WaitGraph::new());
    let [a, b, c] = owners();
    let lost = world.hold(a, "k", X);
    let broken = lock_core::block_on(world.backend.break_lock(&key("k"), None));
    assert_eq!(broken.unwrap(), 1);
    assert!(!lost.is_held());
    let _c = world.hold(c, "k", X);
    let _b = world.hold(b, "l", X);
    let _a_waits = world.wait(a, "l", X);
    // `c` is in the way and goes on; `a` would not, but has nothing any more.
    let _b_waits = world.wait(b, "k", X);
}

#[test]
fn several_keys_in_one_step_are_held() {
    let world = World::new();
    let [a] = owners();
    let options = AcquireOptions::new().owner(a);
    let wanted = ["k", "l"].map(|name| (key(name), options.clone().to_request(Wait::Now).unwrap()));
    let lock_core::Step::Ready(Ok(Some(grants))) = world.backend.acquire_many(&wanted) else {
        panic!("not granted");
    };
    world.refused(a, "l", X);
    for ((key, _), grant) in wanted.iter().zip(&grants) {
        world.backend.abandon(key, grant.attempt);
    }
    world.assert_clean();
}
