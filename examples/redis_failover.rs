//! A file that several hosts write, locked in Redis while masters are replaced under it.
//!
//! Replication in Redis is asynchronous, so for some seconds after a failover two masters may each
//! grant the same lock. No client can rule that out; the fencing token in every guard lets the
//! *file* refuse the one that is late. This program makes it happen and counts.
//!
//! It starts its own servers: a master, two replicas and three sentinels.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, FencedFile, FencingToken, Keepalive, Lock, LockKey};
use lock_redis::{RedisBackend, RedisConfig};
use lock_testkit::services::redis::RedisSentinel;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const WORKERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    let servers = RedisSentinel::start().map_err(|failure| failure.to_string())?;
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::new(directory.path().join("ledger"));
    let through_sentinel = || RedisConfig::sentinel(servers.urls(), servers.name());

    let stop = Stop(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let (config, ledger, stop) = (through_sentinel(), &ledger, &stop);
                scope.spawn(move || work(number, config, ledger, stop).map_err(|e| e.to_string()))
            })
            .collect();
        let faults = stop.when_done(|| break_things(&servers, &ledger));
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        faults
    })?;
    ledger.judge()
}

/// Writes a line under the lock, again and again.
fn work(number: usize, config: RedisConfig, ledger: &Ledger, stop: &Stop) -> Outcome {
    let lock = ledger_lock(config)?;
    while !stop.is_set() {
        // During a failover there is nobody to ask for a moment; the wait limit keeps us alive.
        let Ok(guard) = lock.acquire().wait() else {
            continue;
        };
        if let Some(token) = guard.fencing_token() {
            ledger.write(token, &format!("worker {number}"))?;
        }
        // Dropped here: released, or lost in a failover, which the next acquire waits out.
    }
    Ok(())
}

/// Two failovers, and a straggler that sees only the old master.
fn break_things(servers: &RedisSentinel, ledger: &Ledger) -> Outcome {
    let failed = |failure: lock_testkit::Failure| failure.to_string();
    ledger.until_written("the workers are at work", |_| true)?;

    let old = servers.master().map_err(failed)?;
    servers.fail_over().map_err(failed)?;
    println!("another master was appointed; the old one does not know it yet");
    let straggler = ledger_lock(RedisConfig::at(old.url()))?;
    let guard = straggler.acquire().wait()?;
    let token = guard
        .fencing_token()
        .ok_or("an exclusive guard has a token")?;
    ledger.until_written("a worker holds the same lock", |newest| newest > token)?;
    println!("two masters have granted one lock; the straggler writes now");
    ledger.write(token, "straggler")?;
    drop(guard);

    servers.kill_master().map_err(failed)?;
    println!("the next master was killed and replaced");
    let before = ledger.newest();
    ledger.until_written("the workers go on", |newest| Some(newest) > before)
}

fn ledger_lock(mut config: RedisConfig) -> Outcome<Lock> {
    config.lease = Duration::from_secs(1);
    let backend = Keepalive::new(Arc::new(RedisBackend::new(config)?));
    let lock = Lock::new(Arc::new(backend), LockKey::new("ledger")?);
    Ok(lock.with_options(AcquireOptions::new().wait_limit(PATIENCE)))
}

/// The file, and what became of every write to it, in order.
struct Ledger {
    file: FencedFile,
    writes: Mutex<Vec<Write>>,
}

struct Write {
    token: FencingToken,
    accepted: bool,
}

impl Ledger {
    fn new(path: PathBuf) -> Self {
        Self {
            file: FencedFile::new(path),
            writes: Mutex::default(),
        }
    }

    /// Shows the token to the file, which refuses it when a newer one has written.
    fn write(&self, token: FencingToken, who: &str) -> Outcome {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.file.write(token, who.as_bytes());
        match &written {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                println!("{who} was refused: {error}");
            }
            Err(_) => written.as_ref().map_err(ToString::to_string).copied()?,
        }
        let accepted = written.is_ok();
        writes.push(Write { token, accepted });
        Ok(())
    }

    fn newest(&self) -> Option<FencingToken> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = writes.iter().filter(|write| write.accepted);
        accepted.map(|write| write.token).max()
    }

    fn until_written(&self, what: &str, enough: impl Fn(FencingToken) -> bool) -> Outcome {
        let started = Instant::now();
        while !self.newest().is_some_and(&enough) {
            if started.elapsed() > PATIENCE {
                return Err(format!("in vain waited until {what}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// No write was accepted after one with a higher token, and at least one came so late.
    fn judge(&self) -> Outcome {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut newest, mut stale_accepted, mut refused) = (None, 0, 0);
        for write in writes.iter() {
            if !write.accepted {
                refused += 1;
            } else if Some(write.token) < newest {
                stale_accepted += 1;
            } else {
                newest = Some(write.token);
            }
        }
        let accepted = writes.len() - refused;
        println!(
            "{accepted} writes accepted, {refused} stale ones refused, {stale_accepted} stale ones accepted"
        );
        if stale_accepted > 0 || refused == 0 {
            return Err(
                "the file must refuse every stale write, and there must have been one".into(),
            );
        }
        Ok(())
    }
}

/// Tells the workers to end.
struct Stop(AtomicBool);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Also when `act` fails: nobody may work for ever.
    fn when_done<T>(&self, act: impl FnOnce() -> T) -> T {
        let done = act();
        self.0.store(true, Ordering::Relaxed);
        done
    }
}
