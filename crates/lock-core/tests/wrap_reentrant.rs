//! Counted reentry: by a stated owner that asks for it, and by nobody else.

mod common;

use std::sync::Arc;
use std::task::Poll;

use common::{Memory, key, poll_once};
use lock_core::wrap::{Deadlock, Reentrant};
use lock_core::{
    AcquireOptions, ErrorKind, Lock, LockBackend, LossReason, Mode, OwnerId, Released, block_on,
};

struct World {
    memory: Arc<Memory>,
    lock: Lock,
    job: AcquireOptions,
}

impl World {
    fn new() -> Self {
        Self::around(Memory::new())
    }

    fn around(memory: Arc<Memory>) -> Self {
        let safe = Deadlock::new(Arc::clone(&memory) as _);
        let backend: Arc<dyn LockBackend> = Arc::new(Reentrant::new(Arc::new(safe)));
        Self {
            memory,
            lock: Lock::new(backend, key("k")),
            job: AcquireOptions::new().owner(OwnerId::new()).reentrant(),
        }
    }

    fn is_free(&self) -> bool {
        self.memory.is_idle()
    }
}

#[test]
fn the_last_guard_releases_in_whatever_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let world = World::new();
        let acquire = || world.lock.acquire_with(&world.job).wait().unwrap();
        let mut guards = [Some(acquire()), Some(acquire()), Some(acquire())];
        let tokens = guards
            .each_ref()
            .map(|it| it.as_ref().unwrap().fencing_token());
        assert_eq!(tokens[0], tokens[1]);
        assert_eq!(world.memory.parties(&key("k"))[0].len(), 1, "one hold");
        for (i, at) in order.into_iter().enumerate() {
            let guard = guards[at].take().unwrap();
            if i == 1 {
                assert_eq!(guard.release_blocking().unwrap(), Released::Released);
            } else {
                drop(guard);
            }
            assert_eq!(world.is_free(), i == 2, "after {i} of {order:?}");
        }
    }
}

#[test]
fn an_end_that_comes_twice_takes_nothing_from_the_others() {
    let world = World::new();
    let first = world.lock.acquire_with(&world.job).wait().unwrap();
    let second = world.lock.acquire_with(&world.job).wait().unwrap();
    let attempt = first.attempt();
    drop(first);
    world.lock.backend().abandon(&key("k"), attempt);
    assert!(!world.is_free());
    drop(second);
    assert!(world.is_free());
}

#[test]
fn nobody_else_comes_in_and_nobody_who_has_not_asked() {
    let world = World::new();
    let held = world.lock.acquire_with(&world.job).wait().unwrap();
    let other = AcquireOptions::new().owner(OwnerId::new()).reentrant();
    let mut waits = world.lock.acquire_with(&other);
    assert!(poll_once(&mut waits).is_pending());
    drop(waits);

    let lock = &world.lock;
    // The same owner without asking for it.
    let owner = OwnerId::new();
    let plain = AcquireOptions::new().owner(owner);
    drop(held);
    let held = lock
        .acquire_with(&plain.clone().reentrant())
        .wait()
        .unwrap();
    let refused = lock.acquire_with(&plain).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadlock);
    drop(held);
    // And what was acquired without asking is not shared afterwards.
    let held = lock.acquire_with(&plain).wait().unwrap();
    let refused = lock.acquire_with(&plain.reentrant()).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadlock);
    drop(held);
    assert!(world.is_free());
}

#[test]
fn an_owner_must_be_stated_and_somebody_must_count() {
    let world = World::new();
    for owner in [None, Some(OwnerId::current())] {
        let options = AcquireOptions::new().reentrant();
        let options = match owner {
            Some(owner) => options.owner(owner),
            None => options,
        };
        let refused = world.lock.acquire_with(&options).wait().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
    let plain = Lock::new(Memory::new(), key("k"));
    let refused = plain.acquire_with(&world.job).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
}

#[test]
fn an_exclusive_hold_serves_readers_and_a_shared_one_no_writer() {
    let world = World::new();
    let shared = world.job.clone().mode(Mode::Shared);
    let writing = world.lock.acquire_with(&world.job).wait().unwrap();
    let reading = world.lock.acquire_with(&shared).wait().unwrap();
    assert_eq!(reading.mode(), Mode::Shared);
    assert_eq!(reading.fencing_token(), None);
    assert!(reading.read_version().is_some());
    drop((writing, reading));

    let reading = world.lock.acquire_with(&shared).wait().unwrap();
    // Also with a writer in the queue between the two.
    let other = AcquireOptions::new().owner(OwnerId::new());
    let mut writer = world.lock.acquire_with(&other);
    assert!(poll_once(&mut writer).is_pending());
    let again = world.lock.acquire_with(&shared).wait().unwrap();
    let refused = world.lock.acquire_with(&world.job).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadlock, "an upgrade");
    drop((reading, again));
    let Poll::Ready(Ok(_)) = poll_once(&mut writer) else {
        panic!("not handed over");
    };
}

#[test]
fn what_is_shared_cannot_be_changed_until_one_guard_is_left() {
    let world = World::new();
    let first = world.lock.acquire_with(&world.job).wait().unwrap();
    let mut second = world.lock.acquire_with(&world.job).wait().unwrap();
    let refused = block_on(second.downgrade()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert_eq!(second.mode(), Mode::Exclusive);
    drop(first);
    block_on(second.downgrade()).unwrap();
    let detached = block_on(second.detach()).unwrap();
    assert!(!world.is_free());
    drop(block_on(world.lock.attach(detached)).unwrap());
    assert!(world.is_free());
}

#[test]
fn a_hold_that_was_transferred_is_the_new_owners_to_acquire_again() {
    let world = World::new();
    let mut guard = world.lock.acquire_with(&world.job).wait().unwrap();
    let next = OwnerId::new();
    block_on(guard.transfer_to(next)).unwrap();
    let mut waits = world.lock.acquire_with(&world.job);
    assert!(
        poll_once(&mut waits).is_pending(),
        "the old owner holds no more"
    );
    drop(waits);
    let options = AcquireOptions::new().owner(next).reentrant();
    let again = world.lock.acquire_with(&options).wait().unwrap();
    drop(guard);
    assert!(!world.is_free());
    drop(again);
    assert!(world.is_free());
}

#[test]
fn a_loss_is_told_to_every_guard_and_is_not_shared_any_more() {
    let world = World::around(Memory::losable());
    let first = world.lock.acquire_with(&world.job).wait().unwrap();
    let second = world.lock.acquire_with(&world.job).wait().unwrap();
    block_on(world.lock.backend().break_lock(&key("k"), None)).unwrap();
    assert_eq!(first.loss(), Some(LossReason::Revoked));
    assert_eq!(second.loss(), Some(LossReason::Revoked));
    let anew = world.lock.acquire_with(&world.job).wait().unwrap();
    assert!(anew.is_held());
    drop((first, second));
    assert!(
        anew.is_held() && !world.is_free(),
        "late ends of the lost one"
    );
    drop(anew);
    assert!(world.is_free());
}
