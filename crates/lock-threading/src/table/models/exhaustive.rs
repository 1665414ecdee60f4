//! Every order of steps, and every value that an atomic load may see.

use super::*;

pub(super) fn run(model: impl Fn() + Sync + Send + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(3);
    checker.check(model);
}

#[test]
fn two_threads_that_barge_on_one_key() {
    check("two-that-barge", || two_on_one_key(Fairness::Barging));
}

#[test]
fn a_reader_and_a_writer() {
    check("a-reader-and-a-writer", || {
        a_reader_and(Shared::lock_and_release, Fairness::FirstCome);
    });
}

#[test]
fn a_called_waiter_that_leaves() {
    check("a-called-waiter-leaves", || {
        a_waiter_leaves(Fairness::Barging);
    });
}
