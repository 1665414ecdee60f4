//! Removing the files of unused names, while others use them.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::{LockGuard, block_on};
use support::{Peer, directory, lock, open, options};

#[test]
#[ignore = "the program that the other tests start"]
fn peer_program() {
    support::run_peer();
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "fencing")
        .collect();
    names.sort();
    names
}

#[test]
fn a_sweep_removes_what_nobody_uses_and_nothing_else() {
    let dir = directory();
    let backend = open(dir.path());
    let mut peer = Peer::start(dir.path());
    assert_eq!(peer.ask("acquire exclusive held"), "held");
    assert_eq!(peer.ask("acquire shared read"), "held");
    for mode in ["exclusive", "shared", "3"] {
        drop(
            lock(&backend, mode)
                .acquire_with(&options(mode))
                .wait()
                .unwrap(),
        );
    }
    let day = Duration::from_secs(86_400);
    assert_eq!(
        block_on(backend.sweep(day)).unwrap(),
        0,
        "all were used today"
    );
    assert_eq!(block_on(backend.sweep(Duration::ZERO)).unwrap(), 3);
    let left = files(dir.path());
    assert!(left.contains(&"held.lock".to_owned()), "{left:?}");
    assert!(left.contains(&"read.lock".to_owned()), "{left:?}");
    let foreign = |name: &&String| !name.starts_with("held.") && !name.starts_with("read.");
    assert_eq!(left.iter().find(foreign), None);
    assert!(
        lock(&backend, "held")
            .try_acquire()
            .wait()
            .unwrap()
            .is_none()
    );
    assert_eq!(peer.ask("release"), "Ok(Released)");
    assert_eq!(peer.ask("release"), "Ok(Released)");
}

#[test]
fn numbers_rise_over_a_sweep_also_in_processes_that_do_not_know_of_it() {
    let dir = directory();
    let (backend, other) = (open(dir.path()), open(dir.path()));
    let number = |backend| {
        let guard = lock(backend, "x").acquire().wait().unwrap();
        guard.fencing_token().unwrap()
    };
    let mut last = number(&backend);
    for _ in 0..20 {
        assert_eq!(block_on(other.sweep(Duration::ZERO)).unwrap(), 1);
        assert!(files(dir.path()).is_empty());
        let next = number(&backend);
        assert!(next > last, "{next:?} came after {last:?}");
        last = next;
    }
}

#[test]
fn sweeps_that_race_acquires_let_no_two_in() {
    const ROUNDS: usize = 200;
    const USERS: usize = 3;
    let dir = directory();
    let (inside, broken) = (AtomicU32::new(0), AtomicU32::new(0));
    let (start, done) = (Barrier::new(USERS + 1), AtomicUsize::new(0));
    let mut swept = 0;
    std::thread::scope(|scope| {
        for _ in 0..USERS {
            // Each as a process of its own would be.
            let backend = open(dir.path());
            let (inside, broken, start, done) = (&inside, &broken, &start, &done);
            scope.spawn(move || {
                let lock = lock(&backend, "x");
                let mut last = None;
                for _ in 0..ROUNDS {
                    start.wait();
                    let guard = lock.acquire().wait();
                    let is_alone = inside.fetch_add(1, Ordering::SeqCst) == 0;
                    let token = guard.as_ref().ok().and_then(LockGuard::fencing_token);
                    // Counted, as the others would wait for ever for one that panics.
                    if !is_alone || token <= last {
                        broken.fetch_add(1, Ordering::SeqCst);
                    }
                    last = token;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(guard);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let sweeper = open(dir.path());
        let mut sweep = || swept += block_on(sweeper.sweep(Duration::ZERO)).unwrap_or(0);
        for round in 1..=ROUNDS {
            start.wait();
            while done.load(Ordering::SeqCst) < USERS * round {
                sweep();
            }
        }
    });
    assert_eq!(broken.into_inner(), 0, "two held it, or a number went back");
    assert!(swept > 0, "no sweep met free files in {ROUNDS} rounds");
}
