//! What an acquire leaves behind.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{Memory, key};
use lock_core::Lock;

#[test]
fn a_backend_that_panics_keeps_nothing_of_the_attempt() {
    let memory = Memory::new();
    let lock = Lock::new(Arc::clone(&memory) as _, key("k"));
    memory.panic_next();
    let outcome = catch_unwind(AssertUnwindSafe(|| lock.acquire().wait()));
    assert!(outcome.is_err(), "it did not panic");
    assert!(lock.try_acquire().wait().unwrap().is_some(), "still held");
}
