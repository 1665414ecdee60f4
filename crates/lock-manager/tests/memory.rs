//! Memory, alone in its process: other tests would allocate in between.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use lock_manager::{Config, LockManager};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is the only way to count what is allocated"
)]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Case 27: memory after 1,000,000 names touched returns to its start.
#[test]
fn memory_returns_after_a_million_names() {
    let manager = LockManager::new(Config::default()).unwrap();
    let touch = |name: usize| {
        let lock = manager.lock(format!("name-{name}")).unwrap();
        drop(lock.acquire().wait().unwrap());
        lock
    };
    // What is made once, for the first names.
    (0..10_000).for_each(|name| drop(touch(name)));
    let start = IN_USE.load(Ordering::Relaxed);

    (0..1_000_000).for_each(|name| drop(touch(name)));
    let after_one_by_one = IN_USE.load(Ordering::Relaxed);
    assert!(manager.list_locks().is_empty());
    assert_near(after_one_by_one, start);

    let alive: Vec<_> = (0..200_000).map(touch).collect();
    let per_name = (IN_USE.load(Ordering::Relaxed) - start) / alive.len();
    assert!(per_name < 1_000, "{per_name} bytes for one name in use");
    drop(alive);
    let after_many_at_once = IN_USE.load(Ordering::Relaxed);
    assert_near(after_many_at_once, start);
}

fn assert_near(after: usize, start: usize) {
    assert!(
        after < start + 64 * 1024,
        "{after} bytes are in use, {start} were at the start"
    );
}
