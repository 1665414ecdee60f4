//! Many random orders, or real threads.

use super::*;

#[cfg(shuttle)]
fn run(model: impl Fn() + Sync + Send + 'static) {
    shuttle::check_pct(model, 20_000, 3);
}

#[cfg(races)]
fn run(model: impl Fn()) {
    (0..500).for_each(|_| model());
}

fn check(name: &'static str, model: impl Fn() + Sync + Send + 'static) {
    let count = Arc::new(Count::new(name));
    let counted = Arc::clone(&count);
    run(move || {
        counted.one();
        model();
    });
    count.report();
}

/// Many threads on two keys, which wait, leave, read and barge.
fn a_crowd(shared: Arc<Shared>) {
    let threads: Vec<_> = (0..7)
        .map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let key = number % 2;
                match number {
                    0 => shared.queue_and_leave(key, Fairness::Barging),
                    1 | 2 => shared.lock_and_release(key, Fairness::FirstCome),
                    3 => shared.read_and_release(key, Fairness::FirstCome),
                    5 => shared.read_and_release(key, Fairness::Barging),
                    _ => shared.lock_and_release(key, Fairness::Barging),
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(shared.is_empty());
    shared.lock_and_release(0, Fairness::FirstCome);
}

#[test]
fn a_crowd_on_two_keys() {
    check("a-crowd", || a_crowd(Shared::new()));
}

#[test]
fn a_crowd_on_two_keys_that_part() {
    check("a-crowd-that-parts", || a_crowd(Shared::growing()));
}

#[test]
fn a_waiter_that_leaves_before_another() {
    check("a-waiter-leaves-before-another", || {
        a_waiter_leaves_before_another(Fairness::FirstCome);
    });
}

#[test]
fn a_called_waiter_that_leaves_before_another() {
    check("a-called-waiter-leaves-before-another", || {
        a_waiter_leaves_before_another(Fairness::Barging);
    });
}

#[test]
fn a_newcomer_and_an_open_slot() {
    check("an-open-slot", a_newcomer_takes_an_open_slot);
}

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
fn a_waiter_that_leaves() {
    check("a-waiter-leaves", || a_waiter_leaves(Fairness::FirstCome));
}
