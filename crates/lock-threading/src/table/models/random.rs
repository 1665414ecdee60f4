//! Many random orders, or real threads.

use super::*;

#[cfg(shuttle)]
pub(super) fn run(model: impl Fn() + Sync + Send + 'static) {
    shuttle::check_pct(model, 20_000, 3);
}

#[cfg(races)]
pub(super) fn run(model: impl Fn()) {
    (0..500).for_each(|_| model());
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
fn a_called_waiter_that_leaves_before_another() {
    check("a-called-waiter-leaves-before-another", || {
        a_waiter_leaves_before_another(Fairness::Barging);
    });
}
