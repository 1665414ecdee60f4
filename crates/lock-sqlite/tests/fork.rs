//! Children made by `fork` while the parent is at work in the database.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lock_testkit::Outcome;
use lock_testkit::fork::Forked;
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
    let parents = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                count(&backend, &counter);
                rounds += 1;
            }
            rounds
        });
        let children = [(); CHILDREN].map(|()| {
            Forked::start(|| {
                let parents = lock(&backend, "held by the parent").try_acquire();
                assert!(parents.wait().unwrap().is_none());
                for _ in 0..ROUNDS {
                    count(&backend, &counter);
                }
            })
        });
        let ended = children.map(|child| child.and_then(Forked::join));
        stop.store(true, Ordering::Relaxed);
        let parents = busy.join().unwrap();
        ended.into_iter().collect::<Outcome>().unwrap();
        parents
    });
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
