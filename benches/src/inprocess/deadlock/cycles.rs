//! Planted cycles, in every mode.

use anyhow::{Result, ensure};
use lock_benches::{Bar, Session};
use lock_manager::{Acquire, AcquireOptions, ErrorKind, LockGuard, LockManager, Mode, OwnerId};

use super::{detecting, poll};

const LENGTHS: [usize; 4] = [1, 2, 3, 8];
const PLANTED: usize = 100;

pub(super) fn measure(session: &mut Session) -> Result<()> {
    let mut missed = 0;
    let rounds = session.section("deadlock detection: planted cycles", |round| {
        let manager = detecting()?;
        let modes = [
            ("exclusive", Mode::Exclusive, Mode::Exclusive),
            ("shared holders", Mode::Shared, Mode::Exclusive),
            ("permits", Mode::permits(2, 2)?, Mode::permits(1, 2)?),
        ];
        for (mode, held, wanted) in modes {
            for length in LENGTHS {
                let mut found = 0;
                for _ in 0..PLANTED {
                    found += usize::from(plant(&manager, length, held, wanted)?);
                }
                round.record(format!("{mode}, {length} of them: found"), found as f64);
                missed += PLANTED - found;
            }
        }
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        let bar = Bar::at_most("planted cycles of 1, 2, 3 and 8 missed, of all rounds", 0.0);
        session.judge(&rounds, &bar, |_| missed as f64);
    }
    Ok(())
}

/// Whether the acquire that closes a ring is refused, and names all of it.
fn plant(manager: &LockManager, length: usize, held: Mode, wanted: Mode) -> Result<bool> {
    let owners: Vec<OwnerId> = (0..length).map(|_| OwnerId::new()).collect();
    let ask = |owner: usize, key: usize, mode: Mode| -> Result<Acquire> {
        let options = AcquireOptions::new().owner(owners[owner]).mode(mode);
        Ok(manager.lock(format!("ring/{key}"))?.acquire_with(&options))
    };
    let mut guards: Vec<LockGuard> = Vec::new();
    for owner in 0..length {
        guards.push(ask(owner, owner, held)?.wait()?);
    }
    let mut waits = Vec::new();
    for owner in 1..length {
        let mut wait = ask(owner, (owner + 1) % length, wanted)?;
        ensure!(poll(&mut wait).is_pending(), "no contention");
        waits.push(wait);
    }
    let outcome = poll(&mut ask(0, 1 % length, wanted)?);
    let std::task::Poll::Ready(Err(error)) = outcome else {
        return Ok(false);
    };
    let mut named: Vec<OwnerId> = error.cycle().iter().map(|edge| edge.owner).collect();
    named.sort_unstable();
    let sites = error.cycle().iter().all(|edge| edge.site.is_some());
    Ok(error.kind() == ErrorKind::Deadlock && named == owners && sites)
}
