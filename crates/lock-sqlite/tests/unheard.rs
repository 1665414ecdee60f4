//! Wake-ups that never arrive.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::fs;
use std::path::Path;

use lock_core::block_on;
use support::{directory, eventually, lock, open, report};

/// Whoever sends a letter from now on finds nobody.
fn remove_sockets(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let sockets = files.filter(|file| file.file_name().to_string_lossy().ends_with(".socket"));
    sockets
        .map(|socket| fs::remove_file(socket.path()).unwrap())
        .count()
}

#[test]
fn a_waiter_whom_no_wake_up_reaches_looks_by_itself() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let (giver, taker) = (open(&path), open(&path));
    drop(lock(&taker, "warm").acquire().wait().unwrap());
    for turn in 0..3 {
        let held = lock(&giver, "x").acquire().wait().unwrap();
        let waiter = std::thread::spawn({
            let wanted = lock(&taker, "x").acquire();
            move || wanted.wait().map(drop)
        });
        let task = std::thread::spawn({
            let wanted = lock(&taker, "x").acquire();
            move || block_on(wanted).map(drop)
        });
        eventually("both are in the queue", || {
            report(&giver, "x").is_some_and(|report| report.waiters.len() == 2)
        });
        let removed = remove_sockets(&dir.path().join("l.db-sessions"));
        assert_eq!(removed, if turn == 0 { 2 } else { 0 });
        held.release_blocking().unwrap();
        eventually("both had their turn", || {
            waiter.is_finished() && task.is_finished()
        });
        waiter.join().unwrap().unwrap();
        task.join().unwrap().unwrap();
    }
    assert!(report(&giver, "x").is_none());
}
