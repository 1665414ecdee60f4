//! Processes that run out of files, or look at each other.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use lock_core::AcquireOptions;
use rustix::process::Signal;
use support::{Peer, directory, eventually, lock, open, waiters};

#[test]
#[ignore = "the program that the other tests start"]
fn peer_program() {
    support::run_peer();
}

#[test]
fn names_that_are_not_in_use_cost_no_files_that_others_need() {
    let dir = directory();
    let mut peer = Peer::start(dir.path());
    assert_eq!(peer.ask("limit 100"), "0");
    assert_eq!(peer.ask("touch 1000"), "touched");
}

#[test]
fn too_many_files_are_a_clear_error_that_holds_nothing() {
    let dir = directory();
    let mut peer = Peer::start(dir.path());
    // What starts once, starts before.
    assert_eq!(peer.ask("touch 1"), "touched");
    assert_eq!(peer.ask("limit 100"), "0");
    let answer = peer.ask("exhaust");
    let (held, rest) = answer.split_once(' ').unwrap();
    assert!(held.parse::<u32>().unwrap() > 30, "{answer}");
    assert!(rest.starts_with("true Unavailable "), "{answer}");
    assert!(rest.contains("ulimit -n"), "{answer}");
}

#[test]
fn a_holder_sees_who_is_next_in_another_process() {
    let dir = directory();
    let backend = open(dir.path());
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    let mut peer = Peer::start(dir.path());
    peer.tell("acquire exclusive x");
    eventually("it waits", || waiters(&backend, "x").len() == 1);
    assert_eq!(waiters(&backend, "x")[0].process.pid, peer.pid());
    drop(guard);
    assert_eq!(peer.hear(), "held");
}

#[test]
fn the_next_one_that_others_see_is_one_that_waits() {
    let dir = directory();
    let backend = open(dir.path());
    let mut peer = Peer::start(dir.path());
    assert_eq!(peer.ask("acquire exclusive x"), "held");
    let mut waits = ["first", "second"].map(|label| {
        let mut acquire = lock(&backend, "x").acquire_with(&AcquireOptions::new().label(label));
        assert!(acquire.try_take().is_none());
        Some(acquire)
    });
    eventually("the first is next", || {
        peer.ask("waiters x") == r#"["first"]"#
    });
    waits[0] = None;
    eventually("the second is next", || {
        peer.ask("waiters x") == r#"["second"]"#
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_waiters_cost_no_threads_and_wake_no_oftener_than_one() {
    let dir = directory();
    let (mut holder, mut peer) = (Peer::start(dir.path()), Peer::start(dir.path()));
    assert_eq!(holder.ask("acquire exclusive x"), "held");
    assert_eq!(peer.ask("crowd 1 x"), "queued");
    let (threads, _) = activity(&peer);
    assert_eq!(peer.ask("crowd 99 x"), "queued");
    let (threads_of_all, before) = activity(&peer);
    assert_eq!(threads_of_all, threads);
    // sleep: what an idle second costs is the question
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (_, after) = activity(&peer);
    assert!(after - before < 150, "woke {} times", after - before);
}

/// How many threads a process has, and how often they have gone to sleep so far.
#[cfg(target_os = "linux")]
fn activity(peer: &Peer) -> (usize, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap();
    let sleeps: Vec<u64> = tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary"));
            let count = line.unwrap().split_whitespace().last().unwrap();
            count.parse().unwrap()
        })
        .collect();
    (sleeps.len(), sleeps.iter().sum())
}

#[test]
fn a_process_that_is_stopped_while_it_is_next_keeps_its_turn_and_dies_with_it() {
    let dir = directory();
    let backend = open(dir.path());
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    let mut peer = Peer::start(dir.path());
    peer.tell("acquire exclusive x");
    eventually("it is next", || waiters(&backend, "x").len() == 1);
    peer.signal(Signal::STOP);
    drop(guard);
    let other = open(dir.path());
    let limit = std::time::Duration::from_millis(100);
    let overtakes = lock(&other, "x").try_acquire_for(limit).wait().unwrap();
    assert!(overtakes.is_none(), "nobody overtakes one that is next");
    peer.signal(Signal::CONT);
    assert_eq!(peer.hear(), "held");
    peer.signal(Signal::STOP);
    assert!(
        lock(&other, "x")
            .try_acquire_for(limit)
            .wait()
            .unwrap()
            .is_none()
    );
    let waiting = lock(&other, "x").acquire();
    peer.kill();
    assert!(waiting.wait().unwrap().is_held());
}

#[test]
fn a_lock_file_that_is_cut_short_is_lost_and_ends_nobody() {
    let dir = directory();
    let mut peer = Peer::start(dir.path());
    // Used twice, so that its page is mapped.
    for _ in 0..3 {
        assert_eq!(peer.ask("acquire exclusive x"), "held");
        assert_eq!(peer.ask("release"), "Ok(Released)");
    }
    assert_eq!(peer.ask("acquire exclusive x"), "held");
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("x.lock"));
    file.unwrap().set_len(0).unwrap();
    assert_eq!(peer.ask("release"), "Ok(AlreadyLost)");
    assert_eq!(peer.ask("acquire exclusive x"), "held");
    assert_eq!(peer.ask("release"), "Ok(Released)");
}

#[test]
fn a_child_that_was_forked_before_the_lock_does_not_keep_it() {
    let dir = directory();
    let backend = open(dir.path());
    let mut parent = Peer::start(dir.path());
    // The page is mapped when the child is forked, and its copy stays.
    for _ in 0..3 {
        assert_eq!(parent.ask("acquire exclusive x"), "held");
        assert_eq!(parent.ask("release"), "Ok(Released)");
    }
    assert_eq!(parent.ask("acquire exclusive y"), "held");
    let child: u32 = parent.ask("fork y").parse().unwrap();
    assert_eq!(parent.ask("acquire exclusive x"), "held");
    parent.kill();
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{child}")).exists());
    drop(guard);
    support::signal(child, Signal::KILL);
}
