//! The deadlock wrapper under many threads: one victim for a cycle, none without.

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use common::poll_once;
use common::world::{S, World, X, permits};
use lock_core::{ErrorKind, OwnerId};

#[test]
fn of_owners_that_close_a_cycle_at_once_one_is_refused() {
    for round in 0..300 {
        let n = 2 + round % 7;
        let world = World::new();
        let (barrier, victims) = (Barrier::new(n), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for i in 0..n {
                let (world, barrier, victims) = (&world, &barrier, &victims);
                scope.spawn(move || {
                    let owner = OwnerId::new();
                    let guard = world.hold(owner, &format!("k{i}"), X);
                    barrier.wait();
                    let next = world.ask(owner, &format!("k{}", (i + 1) % n), X);
                    match next.wait() {
                        Ok(next) => drop((next, guard)),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Deadlock);
                            assert_eq!(error.cycle().len(), n);
                            victims.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(victims.into_inner(), 1);
        world.assert_clean();
    }
}

/// Eight owners take keys in order, in random modes: 10^5 acquisitions, no report.
#[test]
fn ordered_acquisitions_are_never_refused() {
    const OWNERS: u64 = 8;
    const KEYS: u64 = 24;
    const EACH: usize = 12_500;
    let world = World::new();
    let refused = AtomicUsize::new(0);
    let waited = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..OWNERS {
            let (world, refused, waited) = (&world, &refused, &waited);
            scope.spawn(move || {
                let owner = OwnerId::new();
                let mut random = Random(seed + 1);
                let mut acquired = 0;
                while acquired < EACH {
                    let mut guards = Vec::new();
                    let mut at = random.below(KEYS / 2);
                    while at < KEYS && guards.len() < 5 {
                        // Each fourth key is one of permits; the others mix shared and exclusive.
                        let mode = match (at % 4, random.below(3)) {
                            (0, count) => permits(count as u32 + 1, 3),
                            (_, 0) => X,
                            _ => S,
                        };
                        let mut acquire = world.ask(owner, &format!("k{at:02}"), mode);
                        let outcome = match poll_once(&mut acquire) {
                            Poll::Ready(outcome) => outcome,
                            Poll::Pending => {
                                waited.fetch_add(1, Ordering::Relaxed);
                                acquire.wait()
                            }
                        };
                        match outcome {
                            Ok(guard) => guards.push(guard),
                            Err(_) => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        acquired += 1;
                        at += 1 + random.below(6);
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0);
    assert!(waited.into_inner() > 1000, "hardly anyone had to wait");
    world.assert_clean();
}

/// A small generator (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}
