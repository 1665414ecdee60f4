//! Owners who take keys in one order, so that none is ever stuck.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use lock_benches::{Bar, Session};
use lock_manager::{AcquireOptions, ErrorKind, LockManager, Mode, OwnerId};

use super::detecting;

const OWNERS: u64 = 8;
const KEYS: u64 = 24;
/// In nine rounds, a million.
const ACQUISITIONS: usize = 112_000;

pub(super) fn measure(session: &mut Session) -> Result<()> {
    let (mut refused, mut acquired) = (0, 0);
    let rounds = session.section("deadlock detection: no cycle", |round| {
        let counts = acquire_in_order(&detecting()?)?;
        round.record("acquisitions", counts.acquired as f64);
        round.record("of these refused", counts.refused as f64);
        refused += counts.refused;
        acquired += counts.acquired;
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        let bar = Bar::at_most("acyclic acquisitions refused, of all rounds", 0.0);
        session.judge(&rounds, &bar, |_| refused as f64);
        let bar = Bar::at_least("acyclic acquisitions over 8 owners, of all rounds", 1e6);
        session.judge(&rounds, &bar, |_| acquired as f64);
    }
    Ok(())
}

struct Counts {
    acquired: usize,
    refused: usize,
}

fn acquire_in_order(manager: &LockManager) -> Result<Counts> {
    let refused = AtomicUsize::new(0);
    let each = ACQUISITIONS / OWNERS as usize;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..OWNERS)
            .map(|seed| {
                let refused = &refused;
                scope.spawn(move || run_owner(manager, seed + 1, each, refused))
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(Counts {
        acquired: each * OWNERS as usize,
        refused: refused.into_inner(),
    })
}

fn run_owner(manager: &LockManager, seed: u64, each: usize, refused: &AtomicUsize) -> Result<()> {
    let options = AcquireOptions::new().owner(OwnerId::new());
    let mut random = Random(seed);
    let mut acquired = 0;
    while acquired < each {
        let mut guards = Vec::new();
        let mut at = random.below(KEYS / 2);
        while at < KEYS && guards.len() < 5 && acquired < each {
            // Each fourth key is one of permits; the others mix shared and exclusive.
            let mode = match (at % 4, random.below(3)) {
                (0, count) => Mode::permits(count as u32 + 1, 3)?,
                (_, 0) => Mode::Exclusive,
                _ => Mode::Shared,
            };
            let lock = manager.lock(format!("ordered/{at:02}"))?;
            match lock.acquire_with(&options.clone().mode(mode)).wait() {
                Ok(guard) => guards.push(guard),
                Err(error) if error.kind() == ErrorKind::Deadlock => {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
            acquired += 1;
            at += 1 + random.below(6);
        }
    }
    Ok(())
}

/// A small generator (xorshift), so that a round repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}
