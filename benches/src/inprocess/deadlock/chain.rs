//! Queueing behind owners who wait for each other in a chain.

use anyhow::{Result, ensure};
use lock_benches::{Bar, Samples, Session};
use lock_manager::{Acquire, AcquireOptions, Lock, LockGuard, LockManager, OwnerId};

use super::{Both, poll};

const LENGTH: usize = 50;
/// So many that a round is long beside the steps in which the system counts who used the processor.
const SAMPLES: usize = 200_000;
const ADDED: &str = "added us";

pub(super) fn measure(session: &mut Session) -> Result<()> {
    let name = format!("deadlock detection: queueing behind a chain of {LENGTH}");
    let rounds = session.section(&name, |round| {
        let both = Both::new()?;
        let (off, on) = (Chain::new(&both.off)?, Chain::new(&both.on)?);
        let (mut times_off, mut times_on) = (Samples::default(), Samples::default());
        for _ in 0..SAMPLES {
            off.queue(&mut times_off);
            on.queue(&mut times_on);
        }
        let (off, on) = (times_off.percentile(50.0), times_on.percentile(50.0));
        round.record("queueing, us: off", off);
        round.record("queueing, us: on", on);
        round.record(ADDED, on - off);
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        let name = format!("detection on, added us when queueing behind a chain of {LENGTH}");
        session.judge(&rounds, &Bar::at_most(name, 1.0), |round| round.get(ADDED));
    }
    Ok(())
}

/// Each owner holds a key and waits for the next one's; the last waits for nobody.
struct Chain {
    first: Lock,
    newcomer: AcquireOptions,
    _waits: Vec<Acquire>,
    _held: Vec<LockGuard>,
    _wanted: Acquire,
}

impl Chain {
    fn new(manager: &LockManager) -> Result<Self> {
        let mut links = Vec::new();
        for number in 0..LENGTH {
            let options = AcquireOptions::new().owner(OwnerId::new());
            let lock = manager.lock(format!("chain/{number}"))?;
            links.push(lock.with_options(options));
        }
        let held = links.iter().map(|link| link.acquire().wait());
        let held: Vec<LockGuard> = held.collect::<Result<_, _>>()?;
        let mut waits = Vec::new();
        for pair in links.windows(2) {
            let mut wait = pair[1].acquire_with(pair[0].options());
            ensure!(poll(&mut wait).is_pending(), "a link does not wait");
            waits.push(wait);
        }
        // Somebody waits for the newcomer too, so that there is something to look for.
        let newcomer = AcquireOptions::new().owner(OwnerId::new());
        let own = manager.lock("chain/own")?;
        let mut guards = held;
        guards.push(own.acquire_with(&newcomer).wait()?);
        let mut wanted = own.acquire();
        ensure!(
            poll(&mut wanted).is_pending(),
            "nobody waits for the newcomer"
        );
        Ok(Self {
            first: links[0].clone(),
            newcomer,
            _waits: waits,
            _held: guards,
            _wanted: wanted,
        })
    }

    /// Measures the step from asking to being queued.
    fn queue(&self, times: &mut Samples) {
        let mut acquire = self.first.acquire_with(&self.newcomer);
        let outcome = times.measure(|| poll(&mut acquire));
        assert!(outcome.is_pending(), "{outcome:?}");
    }
}
