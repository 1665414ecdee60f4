//! Ctrl-C at a terminal.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Place, Running, until, wait_for};

/// Runs under a terminal of its own. Returns the end that a person types at.
fn at_a_terminal(command: &Command) -> (Running, File) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut setsid = Command::new("setsid");
    setsid
        .args(["--ctty", "--wait"])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::from(terminal));
    (Running::start(setsid, "/dev/null".into()), keyboard.into())
}

/// Counts interrupts until it gets USR1.
const COUNT: &str = "trap 'echo int >> history' INT; trap 'echo end >> history; exit 0' USR1; \
                     touch up; while :; do sleep 0.01; done";

#[test]
fn an_interrupt_from_the_keyboard_arrives_once() {
    let place = Place::new();
    let (running, mut keyboard) = at_a_terminal(&place.run("k", &[], COUNT));
    wait_for(&place.file("up"));
    // Stopped, lockctl passes nothing on before the command has seen the terminal's own signal: two
    // at the same time would be merged.
    running.signal(Signal::STOP);
    keyboard.write_all(b"\x03").unwrap();
    until("the command is interrupted", || {
        !place.lines("history").is_empty()
    });
    running.signal(Signal::CONT);
    running.signal(Signal::USR1);
    assert_eq!(running.outcome().code, 0);
    assert_eq!(place.lines("history"), ["int", "end"]);
}

#[test]
fn an_interrupt_from_the_keyboard_reaches_a_group_of_its_own() {
    let place = Place::new();
    let (running, mut keyboard) = at_a_terminal(&place.run("k", &["--group"], COUNT));
    wait_for(&place.file("up"));
    keyboard.write_all(b"\x03").unwrap();
    until("the command is interrupted", || {
        !place.lines("history").is_empty()
    });
    running.signal(Signal::USR1);
    assert_eq!(running.outcome().code, 0);
    assert_eq!(place.lines("history"), ["int", "end"]);
}
