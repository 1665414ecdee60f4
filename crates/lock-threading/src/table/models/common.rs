//! What every checker runs.

use super::*;

#[test]
fn two_threads_on_one_key() {
    check("two-on-one-key", || two_on_one_key(Fairness::FirstCome));
}

#[test]
fn two_keys_that_share_a_slot() {
    check("two-keys-of-one-slot", two_keys_of_one_slot);
}

#[test]
fn two_readers() {
    check("two-readers", || {
        a_reader_and(Shared::read_and_release, Fairness::FirstCome);
    });
}

#[test]
fn a_reader_and_a_writer_that_barge() {
    check("a-reader-and-a-writer-that-barge", || {
        a_reader_and(Shared::lock_and_release, Fairness::Barging);
    });
}

#[test]
fn a_newcomer_and_an_open_slot() {
    check("an-open-slot", a_newcomer_takes_an_open_slot);
}

#[test]
fn a_waiter_that_is_let_in_beside_another_key() {
    check("let-in-beside-another", one_is_let_in_beside_another_key);
}

#[test]
fn an_attempt_that_leaves_before_eyes() {
    check("an-attempt-leaves", || {
        an_attempt_leaves_before_eyes(Mode::Exclusive);
    });
}

#[test]
fn readers_that_leave_before_eyes() {
    check("readers-leave", || {
        an_attempt_leaves_before_eyes(Mode::Shared);
    });
}

#[test]
fn two_keys_that_part() {
    check("two-keys-part", || two_keys_part(Fairness::FirstCome));
}

#[test]
fn two_keys_that_part_with_threads_that_barge() {
    check("two-keys-part-barging", || two_keys_part(Fairness::Barging));
}

#[test]
fn an_attempt_that_leaves_as_keys_part() {
    check(
        "an-attempt-leaves-as-keys-part",
        an_attempt_leaves_as_keys_part,
    );
}

#[test]
fn a_holder_and_a_flag() {
    check("seen-or-sees", a_holder_is_seen_or_sees);
}

#[test]
fn a_waiter_that_leaves() {
    check("a-waiter-leaves", || a_waiter_leaves(Fairness::FirstCome));
}

#[test]
fn a_waiter_that_leaves_before_another() {
    check("a-waiter-leaves-before-another", || {
        a_waiter_leaves_before_another(Fairness::FirstCome);
    });
}
