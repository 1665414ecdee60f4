//! Children made by `fork` while the parent is at work in the database.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use support::{directory, lock, open};

const CHILDREN: usize = 8;
const ROUNDS: u32 = 40;

/// Adds to a number in a file, without any care but the lock.
fn count(backend: &lock_sqlite::SqliteBackend, path: &Path) {
    let guard = lock(backend, "counted").acquire().wait().unwrap();
    let before: u32 = std::fs::read_to_string(path).unwrap().parse().unwrap();
    std::fs::write(path, (before + 1).to_string()).unwrap();
    guard.release_blocking().unwrap();
}

#[expect(unsafe_code, reason = "a real fork is what is tested")]
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child uses this library, which is made for it, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the process, and runs nothing of the parent's.
        unsafe { libc::_exit(i32::from(done.is_err())) }
    }
    assert!(pid > 0, "no fork");
    pid
}

/// The exit code of a child; `None` while it runs.
#[expect(
    unsafe_code,
    reason = "the standard library waits for its own children only"
)]
fn ended(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: a system call that writes to a variable of ours.
    let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (found == pid).then_some(status)
}

#[test]
fn children_forked_in_the_midst_of_transactions_lock_with_their_parent() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let counter = dir.path().join("counter");
    std::fs::write(&counter, "0").unwrap();
    let backend = open(&path);
    let held = lock(&backend, "held by the parent")
        .acquire()
        .wait()
        .unwrap();
    let stop = AtomicBool::new(false);
    let (statuses, parents) = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                count(&backend, &counter);
                rounds += 1;
            }
            rounds
        });
        let children: Vec<i32> = (0..CHILDREN)
            .map(|_| {
                fork(|| {
                    let parents = lock(&backend, "held by the parent").try_acquire();
                    assert!(parents.wait().unwrap().is_none());
                    for _ in 0..ROUNDS {
                        count(&backend, &counter);
                    }
                })
            })
            .collect();
        let started = Instant::now();
        let mut statuses = vec![None; CHILDREN];
        while statuses.contains(&None) && started.elapsed() < Duration::from_secs(60) {
            for (status, pid) in statuses.iter_mut().zip(&children) {
                *status = status.or_else(|| ended(*pid));
            }
            // sleep: polling for the end of processes
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        (statuses, busy.join().unwrap())
    });
    assert_eq!(statuses, vec![Some(0); CHILDREN]);
    let counted: u32 = std::fs::read_to_string(&counter).unwrap().parse().unwrap();
    assert_eq!(counted, parents + CHILDREN as u32 * ROUNDS);
    assert!(held.is_held());
    assert_eq!(
        held.release_blocking().unwrap(),
        lock_core::Released::Released
    );
    let connection = Connection::open(&path).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}
