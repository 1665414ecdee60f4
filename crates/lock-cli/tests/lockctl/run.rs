//! What `lockctl run` promises while nothing goes wrong.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Outcome, Place, Running, wait_for};

#[test]
fn racing_commands_never_overlap() {
    let place = Place::new();
    let script = "echo in $$ >> history; cat history > copy-$$; echo out $$ >> history";
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..8 {
                    assert_eq!(place.outcome("race", &[], script).code, 0);
                }
            });
        }
    });
    let history = place.lines("history");
    assert_eq!(history.len(), 64, "{history:?}");
    for pair in history.chunks(2) {
        let entered = pair[0].strip_prefix("in ");
        assert!(entered.is_some(), "{history:?}");
        assert_eq!(entered, pair[1].strip_prefix("out "), "{history:?}");
    }
}

#[test]
fn shared_holders_meet_and_keep_an_exclusive_one_out() {
    let place = Place::new();
    let first = place.holder("k", &["--shared"]);
    let second = place.holder("k", &["--shared", "--no-wait"]);
    assert_eq!(place.outcome("k", &["--no-wait"], "true").code, 75);
    first.go();
    second.go();
    assert_eq!((first.outcome().code, second.outcome().code), (0, 0));
}

#[test]
fn permits_bound_how_many_run_at_once() {
    let place = Place::new();
    let permits = ["--permits", "2", "--no-wait"];
    let first = place.holder("k", &permits);
    let _second = place.holder("k", &permits);
    assert_eq!(place.outcome("k", &permits, "true").code, 75);
    first.go();
    assert_eq!(first.outcome().code, 0);
    assert_eq!(place.outcome("k", &permits, "true").code, 0);
}

#[test]
fn another_mode_on_a_key_in_use_is_refused() {
    let place = Place::new();
    let _shared = place.holder("k", &["--shared"]);
    let refused = place.outcome("k", &["--permits", "2"], "true");
    assert_eq!(refused.code, 65, "{}", refused.stderr);
    assert!(refused.stderr.contains("hint:"), "{}", refused.stderr);
}

#[test]
fn the_exit_status_is_the_command_s() {
    let place = Place::new();
    assert_eq!(place.outcome("k", &[], "exit 0").code, 0);
    assert_eq!(place.outcome("k", &[], "exit 7").code, 7);
    assert_eq!(place.outcome("k", &[], "kill -9 $$").code, 137);
    assert_eq!(place.outcome("k", &[], "kill -TERM $$").code, 143);
    let missing = ["run", "k", "--", "./no-such-command"];
    let missing = Outcome::of(&mut place.lockctl(&missing));
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    fs::write(place.file("plain"), "no program").unwrap();
    let plain = Outcome::of(&mut place.lockctl(&["run", "k", "--", "./plain"]));
    assert_eq!(plain.code, 126, "{}", plain.stderr);
}

#[test]
fn input_and_output_are_the_command_s() {
    let place = Place::new();
    fs::write(place.file("input"), "through\n").unwrap();
    let mut command = place.lockctl(&["run", "k", "--", "cat"]);
    command.stdin(fs::File::open(place.file("input")).unwrap());
    assert_eq!(Outcome::of(&mut command).stdout, "through\n");
}

#[test]
fn no_wait_on_a_held_lock_says_who_holds_it() {
    let place = Place::new();
    let holder = place.holder("k", &["--label", "nightly report"]);
    let refused = place.outcome("k", &["--no-wait"], "true");
    assert_eq!(refused.code, 75);
    let who = format!("pid {} ", holder.pid().as_raw_nonzero());
    assert!(refused.stderr.contains(&who), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("nightly report"),
        "{}",
        refused.stderr
    );
    let chosen = place.outcome("k", &["--no-wait", "-E", "5"], "true");
    assert_eq!(chosen.code, 5);
}

#[test]
fn a_wait_ends_at_its_limit() {
    let place = Place::new();
    let _holder = place.holder("k", &[]);
    let started = Instant::now();
    let late = place.outcome("k", &["--wait", "300ms"], "touch ran");
    let waited = started.elapsed();
    assert_eq!(late.code, 75, "{}", late.stderr);
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    assert!(!place.file("ran").exists());
}

#[test]
fn a_waiter_goes_on_when_the_holder_ends() {
    let place = Place::new();
    let holder = place.holder("k", &[]);
    let waiter = place.waiter("k", &[], "echo ran >> history");
    assert!(place.lines("history").is_empty());
    holder.go();
    assert_eq!(waiter.outcome().code, 0);
    assert_eq!(place.lines("history"), ["ran"]);
    assert_eq!(holder.outcome().code, 0);
}

#[test]
fn fencing_tokens_rise_from_run_to_run() {
    let place = Place::new();
    let mut last = 0;
    for _ in 0..5 {
        let told = place.outcome("k", &[], "echo $LOCK_FENCING_TOKEN");
        let token: u64 = told.stdout.trim().parse().unwrap();
        assert!(token > last, "{token} after {last}");
        last = token;
    }
}

#[test]
fn the_command_is_told_what_it_holds() {
    let place = Place::new();
    let tell = "echo $LOCK_KEY/$LOCK_MODE/${LOCK_FENCING_EPOCH-none}/${LOCK_SLOT-none}";
    let told = |args: &[&str]| place.outcome("a b", args, tell).stdout;
    assert_eq!(told(&[]), "a b/exclusive/0/none\n");
    assert_eq!(told(&["--shared"]), "a b/shared/none/none\n");
    assert_eq!(told(&["--permits", "3"]), "a b/permit/none/0\n");
}

#[test]
fn a_nested_run_hides_what_the_outer_one_told() {
    let place = Place::new();
    let inner = format!(
        "{} run inner --shared -- sh -c 'echo $LOCK_KEY ${{LOCK_FENCING_TOKEN-none}}'",
        env!("CARGO_BIN_EXE_lockctl")
    );
    let told = place.outcome("outer", &[], &inner);
    assert_eq!(told.stdout, "inner none\n", "{}", told.stderr);
}

#[test]
fn a_process_left_behind_does_not_keep_the_lock() {
    let place = Place::new();
    let script = "{ until [ -e go ]; do sleep 0.01; done; touch gone; } > /dev/null 2>&1 &";
    assert_eq!(place.outcome("k", &[], script).code, 0);
    assert_eq!(place.outcome("k", &["--no-wait"], "true").code, 0);
    assert!(!place.file("gone").exists());
    fs::write(place.file("go"), "").unwrap();
    wait_for(&place.file("gone"));
}

#[test]
fn a_higher_priority_is_accepted_and_recorded() {
    let place = Place::new();
    let _holder = place.holder("k", &[]);
    let waiter: Running = place.waiter("k", &["--priority", "-5"], "true");
    assert_eq!(place.show("k")["waiters"][0]["priority"], -5);
    waiter.kill();
}
