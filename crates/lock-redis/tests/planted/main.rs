//! Negative controls of the scripts: a defect in one of them, and the case of the suite that notices.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod middlebox;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{Keepalive, LockBackend, LockKey, Result};
use lock_redis::{RedisBackend, RedisConfig};
use lock_testkit::services::redis::RedisServer;
use lock_testkit::{Fault, Kit, Verdict, run_case};
use middlebox::Change;

/// How long what should happen soon may take: a machine that is loaded must not look like a defect.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is changed in the scripts, and the case that must fail by it.
const DEFECTS: &[(Change, &str)] = &[
    (
        // The short acquire does not look.
        ("if redis.call('XLEN', KEYS[1]) > 1 then return 0 end", ""),
        "exclusive::a_failed_acquire_leaves_everything_as_it_was",
    ),
    (
        // The first number is of a time to come.
        (
            "return entry\n",
            "return (string.gsub(entry, '^%d+', '3786912000000'))\n",
        ),
        "exclusive::attempts_differ_and_fencing_rises",
    ),
    (
        // A hand-over keeps the number.
        ("lock.f = math.max(lock.f + 1, now)", ""),
        "contention::a_stress_run_shows_no_violation",
    ),
    (
        // A release frees the key whoever holds it.
        (
            "if lock.h == attempt then\n  clear(lock)",
            "if lock.h then\n  clear(lock)",
        ),
        "exclusive::release_is_idempotent_and_never_frees_the_next_holder",
    ),
    (
        // What is not held is renewed.
        (
            "local alive, fence, party = false",
            "local alive, fence, party = true",
        ),
        "lease::a_renewal_after_release_resurrects_nothing",
    ),
    (
        // A lease has no end.
        ("if lock.h and lock.e <= now then", "if false then"),
        "lease::a_detached_lease_ends_by_itself",
    ),
    (
        // A cancel leaves the waiter in line.
        (
            "if call('ZREM', lock.W, party.line) == 0 then return false end",
            "",
        ),
        "shared::a_cancelled_exclusive_waiter_lets_shared_ones_in",
    ),
    (
        // Priorities are one.
        ("128 - party.priority", "128"),
        "order::a_higher_priority_goes_first",
    ),
    (
        // The last come are the first served.
        (
            "own_band * band + place",
            "own_band * band + band - 1 - place",
        ),
        "order::one_priority_is_served_first_come_first_served",
    ),
    (
        // Nobody is aged to the front.
        ("if count >= bypass_limit then", "if false then"),
        "order::a_waiter_bypassed_64_times_is_served_next",
    ),
    (
        // Who fits does not mind the line.
        (" and overtakes(lock, own_band) then", " then"),
        "shared::a_waiting_exclusive_holds_back_new_shared_ones",
    ),
    (
        // The next one is let in before the downgrade.
        (
            "clear(lock)\n  bind(lock, 's')",
            "clear(lock)\n  admit(lock)\n  bind(lock, 's')",
        ),
        "shared::a_downgrade_leaves_no_gap",
    ),
    (
        // Permits are not counted.
        ("party.of - lock.u >= party.count", "true"),
        "permits::the_maximum_is_reached_and_never_passed",
    ),
    (
        // Every permit is the first.
        ("call('BITPOS', lock.P, 0)", "place - 1"),
        "permits::slots_are_distinct",
    ),
    (
        // Kinds are mixed.
        ("lock.k ~= party.kind then", "false then"),
        "permits::another_maximum_is_a_mode_conflict",
    ),
    (
        // A set is granted although one of it is held.
        ("if not enters then return settled({0, now}) end", ""),
        "options::several_keys_in_one_step",
    ),
    (
        // A lost lock is open at once.
        ("line and parse(line).delay or 0", "0"),
        "options::lock_delay_keeps_the_key_closed",
    ),
];

/// Clients whose scripts have a defect.
#[derive(Debug)]
struct PlantedKit {
    url: String,
}

#[async_trait]
impl Kit for PlantedKit {
    fn name(&self) -> &str {
        "redis with a planted defect"
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        let backend = RedisBackend::new(RedisConfig::at(self.url.as_str()))?;
        Ok(Arc::new(Keepalive::new(Arc::new(backend))))
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        Err("the defect is in this process")
    }

    fn open(&self, _spec: &str) -> Result<Arc<dyn LockBackend>> {
        self.client()
    }

    async fn stored(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        Some("these controls need no faults")
    }

    async fn inflict(&self, _fault: Fault, _key: &LockKey) -> Result<()> {
        Ok(())
    }
}

/// The outcome of every case of [`DEFECTS`], with its own change of the scripts.
fn outcomes(change_for: impl Fn(Change) -> Change) -> Vec<(&'static str, Verdict)> {
    let server = RedisServer::start().unwrap();
    let run = |change, case| {
        let address = middlebox::start(server.port(), change_for(change)).unwrap();
        let kit: Arc<dyn Kit> = Arc::new(PlantedKit {
            url: format!("redis://{address}/"),
        });
        move || (case, run_case(&kit, case, PATIENCE).unwrap())
    };
    // Most wait most of the time.
    std::thread::scope(|scope| {
        let threads: Vec<_> = DEFECTS
            .iter()
            .map(|(change, case)| scope.spawn(run(*change, *case)))
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    })
}

#[test]
fn every_defect_is_noticed() {
    let mut outcomes = outcomes(|change| change);
    outcomes.retain(|(_, verdict)| !matches!(verdict, Verdict::Failed(_)));
    assert!(outcomes.is_empty(), "went unnoticed: {outcomes:?}");
}

#[test]
fn without_a_defect_the_same_cases_pass() {
    let mut outcomes = outcomes(|(real, _)| (real, real));
    outcomes.retain(|(_, verdict)| !matches!(verdict, Verdict::Passed));
    assert!(outcomes.is_empty(), "{outcomes:?}");
}
