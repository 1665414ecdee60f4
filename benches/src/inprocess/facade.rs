//! Through `LockManager`: a named lock, an owned guard, everything that the contract demands.

use anyhow::Result;
use lock_benches::{Bar, Round, Session};
use lock_manager::{Config, Lock, LockGuard, LockManager};

use crate::allocations;
use crate::keys::{keys, time_each_async};
use crate::locks::{AsyncLocks, Keyless, Lockable};

const CALLS: usize = 200_000;
const KEYS: usize = 1_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let keys = keys(KEYS);
    let manager = LockManager::new(Config::default())?;
    let locks = keys
        .iter()
        .map(|key| manager.lock(key))
        .collect::<lock_manager::Result<Vec<Lock>>>()?;
    let rounds = session.section("manager", |round| {
        let tokio = Keyless(tokio::sync::Mutex::new(()));
        let ns = time_each_async(&keys, CALLS, |key| tokio.acquire(key), drop)?;
        round.record("tokio, no key", ns);
        let lockable = Lockable::new();
        let ns = time_each_async(&keys, CALLS, |key| lockable.acquire(key), drop)?;
        round.record("lockable, async", ns);
        let mut failed = 0;
        let ns = time_each_async(&locks, CALLS, Lock::acquire, |outcome| {
            let token = outcome.as_ref().map(LockGuard::fencing_token);
            failed += usize::from(!matches!(token, Ok(Some(_))));
        })?;
        round.record("manager", ns);
        let made = allocations::during(|| {
            for lock in &locks {
                failed += usize::from(lock.acquire().wait().is_err());
            }
        });
        round.record("allocations per pair", made as f64 / locks.len() as f64);
        anyhow::ensure!(
            failed == 0,
            "{failed} acquires failed or had no fencing token"
        );
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let to = |peer: &'static str| move |round: &Round| round.get("manager") / round.get(peer);
    session.judge(
        &rounds,
        &Bar::at_most("manager-to-tokio", 1.6),
        to("tokio, no key"),
    );
    session.judge(
        &rounds,
        &Bar::at_most("manager-to-lockable", 0.35),
        to("lockable, async"),
    );
    session.judge(
        &rounds,
        &Bar::at_most("manager-allocations", 0.0),
        |round| round.get("allocations per pair"),
    );
    Ok(())
}
