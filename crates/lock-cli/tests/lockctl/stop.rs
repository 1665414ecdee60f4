//! Signals, crashes and lost locks.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Outcome, Place, Running, until, until_gone, wait_for};

#[test]
fn signals_reach_the_command() {
    let place = Place::new();
    let signals = [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ];
    for (name, signal) in signals {
        let up = format!("up-{name}");
        let script =
            format!("trap 'echo {name}; exit 9' {name}; touch {up}; while :; do sleep 0.01; done");
        let running = Running::start(place.run("k", &[], &script), place.file("unused"));
        wait_for(&place.file(&up));
        running.signal(signal);
        let ended = running.outcome();
        assert_eq!(
            (ended.code, ended.stdout.trim()),
            (9, name),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_signal_ends_the_wait_and_leaves_nothing_queued() {
    let place = Place::new();
    let holder = place.holder("k", &[]);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let waiter = place.waiter("k", &[], "touch ran");
        waiter.signal(signal);
        assert_eq!(waiter.outcome().code, code);
        assert_eq!(place.show("k")["waiters"].as_array().unwrap().len(), 0);
    }
    holder.go();
    assert_eq!(holder.outcome().code, 0);
    assert!(!place.file("ran").exists());
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let place = Place::new();
    let _holder = place.holder("k", &[]);
    let plain = place.run("k", &[], "true");
    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(plain.get_current_dir().unwrap())
        .env("LOCKCTL_CONFIG", place.file("locks.toml"));
    let waiter = Running::start(nohup, place.file("unused"));
    until("the waiter is queued", || {
        place.show("k")["waiters"].as_array().unwrap().len() == 1
    });
    waiter.signal(Signal::HUP);
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.outcome().code, 143);
}

#[test]
fn a_killed_holder_frees_the_lock_and_takes_its_command_along() {
    let place = Place::new();
    let script = "echo $$ > pid.new; mv pid.new pid; while :; do sleep 0.01; done";
    let holder = Running::start(place.run("k", &[], script), place.file("unused"));
    wait_for(&place.file("pid"));
    let waiter = place.waiter("k", &["--wait", "20s"], "true");
    holder.kill();
    assert_eq!(waiter.outcome().code, 0);
    if cfg!(target_os = "linux") {
        until_gone(&place.lines("pid")[0]);
    }
}

/// Takes the lock away, as an operator would who deletes files that he should not.
fn lose(place: &Place, key: &str) {
    let files = fs::read_dir(place.file("locks")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let of_key = files.filter(|file| file.file_stem().is_some_and(|stem| stem == key));
    let deleted = of_key.map(|file| fs::remove_file(file).unwrap()).count();
    assert!(deleted > 0, "no lock file of `{key}`");
}

/// Starts a command, and takes its lock away once it has made the file `up`.
fn lost_while_running(place: &Place, args: &[&str], script: &str) -> Outcome {
    let running = Running::start(place.run("doomed", args, script), place.file("unused"));
    wait_for(&place.file("up"));
    lose(place, "doomed");
    running.outcome()
}

#[test]
fn a_lost_lock_stops_the_command() {
    let place = Place::new();
    let script = "trap 'echo stopped >> history; exit 0' TERM; touch up; \
                  while :; do sleep 0.01; done";
    let ended = lost_while_running(&place, &[], script);
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("`doomed` was lost"),
        "{}",
        ended.stderr
    );
    assert_eq!(place.lines("history"), ["stopped"]);
}

#[test]
fn a_command_that_ignores_the_loss_is_killed() {
    let place = Place::new();
    let script = "trap '' TERM; touch up; while :; do sleep 0.01; done";
    let ended = lost_while_running(&place, &["--kill-after", "100ms"], script);
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(ended.stderr.contains("SIGKILL"), "{}", ended.stderr);
}

#[test]
fn a_stopped_command_is_woken_to_be_stopped_for_good() {
    let place = Place::new();
    let script = "touch up; kill -STOP $$; while :; do sleep 0.01; done";
    let ended = lost_while_running(&place, &["--kill-after", "1h"], script);
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(ended.stderr.contains("SIGTERM"), "{}", ended.stderr);
}

#[test]
fn a_lost_lock_stops_the_whole_group() {
    let place = Place::new();
    let script = "sh -c 'trap \"\" TERM; echo $$ > pid; touch up; \
                  while [ -e up ]; do sleep 0.01; done' > /dev/null 2>&1 & wait";
    let ended = lost_while_running(&place, &["--group"], script);
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    until_gone(&place.lines("pid")[0]);
}

#[test]
fn a_hold_past_its_limit_is_a_lost_lock() {
    let place = Place::new();
    let ended = place.outcome(
        "k",
        &["--max-hold", "100ms"],
        "while :; do sleep 0.01; done",
    );
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(ended.stderr.contains("max_hold"), "{}", ended.stderr);
    assert_eq!(place.outcome("k", &["--no-wait"], "true").code, 0);
}
