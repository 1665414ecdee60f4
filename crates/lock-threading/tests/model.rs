//! Random runs of the table against a plain model of who holds and who waits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use lock_core::{ErrorKind, FencingToken, Mode, Result};
use lock_threading::{KeyGuard, KeyOptions, KeyedLocks};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Asks for a key.
    Ask { key: u8, mode: Mode, priority: i8 },
    /// Ends one of those who hold or wait: a release, or a waiter that is dropped.
    End(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let permits = |(count, of)| Mode::permits(count, of).unwrap();
    let mode = prop_oneof![
        4 => Just(Mode::Exclusive),
        3 => Just(Mode::Shared),
        2 => prop::sample::select(vec![(1, 3), (2, 3), (3, 3), (1, 2)]).prop_map(permits),
    ];
    let ask = (0..3_u8, mode, -1..=1_i8).prop_map(|(key, mode, priority)| Step::Ask {
        key,
        mode,
        priority,
    });
    let end = any::<prop::sample::Index>().prop_map(Step::End);
    // Fewer than it takes for a waiter to age to the front, which the queue's own tests cover.
    prop::collection::vec(prop_oneof![3 => ask, 2 => end], 1..64)
}

/// The model: parties in the order of their arrival.
#[derive(Clone, Debug)]
struct Party {
    key: u8,
    mode: Mode,
    priority: i8,
    holds: bool,
}

fn fits(all: &[Party], key: u8, mode: Mode) -> bool {
    let holders = || all.iter().filter(|party| party.key == key && party.holds);
    holders().all(|holder| match (holder.mode, mode) {
        (Mode::Shared, Mode::Shared) => true,
        (Mode::Permit(_), Mode::Permit(wanted)) => {
            let used: u32 = holders()
                .map(|holder| match holder.mode {
                    Mode::Permit(permits) => permits.count(),
                    _ => 0,
                })
                .sum();
            used + wanted.count() <= wanted.of()
        }
        _ => false,
    })
}

/// The next waiter of a key: the highest priority, and the first of it.
fn head(all: &[Party], key: u8) -> Option<usize> {
    let waits = |(_, party): &(usize, &Party)| party.key == key && !party.holds;
    let waiters = all.iter().enumerate().filter(waits);
    waiters
        .min_by_key(|(at, party)| (std::cmp::Reverse(party.priority), *at))
        .map(|(at, _)| at)
}

/// `None` for a mode that never takes turns with one in use.
fn ask(all: &[Party], key: u8, mode: Mode, priority: i8) -> Option<Party> {
    let conflicts = |party: &Party| party.key == key && party.mode.conflicts_with(mode);
    if all.iter().any(conflicts) {
        return None;
    }
    let first = head(all, key).is_none_or(|head| priority > all[head].priority);
    Some(Party {
        key,
        mode,
        priority,
        holds: first && fits(all, key, mode),
    })
}

fn end(all: &mut Vec<Party>, at: usize) {
    let key = all.remove(at).key;
    while let Some(head) = head(all, key)
        && fits(all, key, all[head].mode)
    {
        all[head].holds = true;
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<KeyGuard<'a, u8>>> + 'a>>;

enum Real<'a> {
    Waits(Waiting<'a>),
    Holds(#[expect(dead_code, reason = "held until it is dropped")] KeyGuard<'a, u8>),
}

const KEYS: [u8; 3] = [0, 1, 2];

fn run(steps: &[Step], slots: usize) {
    let locks = KeyedLocks::<u8>::new().with_slots(slots);
    let mut model: Vec<Party> = Vec::new();
    let mut real: Vec<Real<'_>> = Vec::new();
    let mut last: HashMap<u8, FencingToken> = HashMap::new();
    for step in steps {
        match step {
            Step::Ask {
                key,
                mode,
                priority,
            } => {
                let options = KeyOptions::new().mode(*mode).priority(*priority);
                let mut asked: Waiting<'_> =
                    Box::pin(locks.acquire_with(&KEYS[usize::from(*key)], options));
                let answer = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                match (ask(&model, *key, *mode, *priority), answer) {
                    (None, Poll::Ready(Err(error))) => {
                        assert_eq!(error.kind(), ErrorKind::ModeConflict);
                    }
                    (Some(party), Poll::Ready(Ok(guard))) => {
                        assert!(party.holds, "{party:?} was let in");
                        rises(&mut last, *key, guard.fencing_token());
                        model.push(party);
                        real.push(Real::Holds(guard));
                    }
                    (Some(party), Poll::Pending) => {
                        assert!(!party.holds, "{party:?} has to wait");
                        model.push(party);
                        real.push(Real::Waits(asked));
                    }
                    (expected, _) => panic!("{expected:?} was answered otherwise"),
                }
            }
            Step::End(which) if !model.is_empty() => {
                let at = which.index(model.len());
                end(&mut model, at);
                drop(real.remove(at));
            }
            Step::End(_) => {}
        }
        compare(&model, &mut real, &mut last);
    }
    drop(real);
    assert_eq!(locks.keys_in_use(), 0);
}

/// Whoever holds in the model holds here, and nobody else.
fn compare<'a>(model: &[Party], real: &mut [Real<'a>], last: &mut HashMap<u8, FencingToken>) {
    for (party, real) in model.iter().zip(real) {
        let Real::Waits(waiting) = real else {
            assert!(party.holds);
            continue;
        };
        let looked = waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        match looked {
            Poll::Ready(guard) => {
                assert!(party.holds, "{party:?} was let in");
                let guard = guard.unwrap();
                rises(last, party.key, guard.fencing_token());
                *real = Real::Holds(guard);
            }
            Poll::Pending => assert!(!party.holds, "{party:?} was not let in"),
        }
    }
}

fn rises(last: &mut HashMap<u8, FencingToken>, key: u8, token: Option<FencingToken>) {
    if let Some(token) = token {
        assert!(last.insert(key, token).is_none_or(|last| last < token));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn random_runs_agree_with_a_plain_model(steps in steps(), few in any::<bool>()) {
        // With one slot all keys meet in it; with many they hardly do.
        run(&steps, if few { 1 } else { 64 });
    }
}
