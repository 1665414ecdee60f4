//! Lock order: reported when both orders have been seen, and only then.

mod common;

use std::sync::Arc;

use common::{Memory, key};
use lock_core::wrap::{LockOrder, OrderBook};
use lock_core::{AcquireOptions, Lock, LockBackend, OwnerId, block_on};

struct World {
    backend: Arc<dyn LockBackend>,
    book: OrderBook,
}

impl World {
    fn new() -> Self {
        let book = OrderBook::new();
        let backend = Arc::new(LockOrder::new(Memory::new(), book.clone()));
        Self { backend, book }
    }

    fn lock(&self, name: &str) -> Lock {
        Lock::new(Arc::clone(&self.backend), key(name))
    }

    /// One after the other, nested, by an owner of their own.
    #[track_caller]
    fn nest(&self, names: &[&str]) {
        let job = AcquireOptions::new().owner(OwnerId::new());
        let guards = names
            .iter()
            .map(|name| self.lock(name).acquire_with(&job).wait().expect("a grant"));
        drop(guards.collect::<Vec<_>>());
    }
}

#[test]
fn the_second_order_is_reported_once_though_nothing_ever_waited() {
    let world = World::new();
    world.nest(&["orders/1", "users/7"]);
    world.nest(&["orders/2", "users/8"]);
    assert_eq!(world.book.inversions(), []);
    world.nest(&["users/9", "orders/3"]);
    world.nest(&["users/9", "orders/4"]);
    let found = world.book.inversions();
    assert_eq!(found.len(), 1);
    let steps = &found[0].steps;
    let classes: Vec<_> = steps.iter().map(|it| (&*it.held, &*it.acquired)).collect();
    assert_eq!(classes, [(":orders", ":users"), (":users", ":orders")]);
    assert!(steps.iter().all(|step| step.site.is_some()));
    assert!(
        found[0]
            .to_string()
            .contains("`:users` while holding `:orders` at ")
    );
}

#[test]
fn a_longer_circle_is_reported_whole() {
    let world = World::new();
    world.nest(&["a/1", "b/1"]);
    world.nest(&["b/1", "c/1"]);
    assert_eq!(world.book.inversions(), []);
    world.nest(&["c/1", "a/1"]);
    let found = world.book.inversions();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].steps.len(), 3);
}

#[test]
fn one_after_the_other_is_no_order() {
    let world = World::new();
    world.nest(&["a/1"]);
    world.nest(&["b/1"]);
    let job = AcquireOptions::new().owner(OwnerId::new());
    let (a, b) = (world.lock("a/1"), world.lock("b/1"));
    drop(a.acquire_with(&job).wait().unwrap());
    drop(b.acquire_with(&job).wait().unwrap());
    drop(a.acquire_with(&job).wait().unwrap());
    // Two owners at the same time.
    let other = AcquireOptions::new().owner(OwnerId::new());
    let held = b.acquire_with(&job).wait().unwrap();
    drop(a.acquire_with(&other).wait().unwrap());
    drop(held);
    // One try gives up instead of waiting.
    let held = b.acquire_with(&job).wait().unwrap();
    drop(a.try_acquire_with(&job).wait().unwrap());
    drop(held);
    world.nest(&["a/1", "b/1"]);
    // Within a class the order is not looked at.
    world.nest(&["a/1", "a/2"]);
    world.nest(&["a/2", "a/1"]);
    assert_eq!(world.book.inversions(), []);
}

#[test]
fn a_lock_that_changed_hands_counts_for_its_new_owner() {
    let world = World::new();
    world.nest(&["a/1", "b/1"]);
    let (old, new) = (OwnerId::new(), OwnerId::new());
    let options = |owner| AcquireOptions::new().owner(owner);
    let (a, b) = (world.lock("a/1"), world.lock("b/1"));
    let mut held = b.acquire_with(&options(old)).wait().unwrap();
    block_on(held.transfer_to(new)).unwrap();
    drop(a.acquire_with(&options(old)).wait().unwrap());
    assert_eq!(world.book.inversions(), []);
    drop(a.acquire_with(&options(new)).wait().unwrap());
    assert_eq!(world.book.inversions().len(), 1);
}
