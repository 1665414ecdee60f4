//! Children made by `fork` while the parent is at work in the database.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lock_testkit::Outcome;
use lock_testkit::fork::Forked;
use rusqlite::Connection;
use support::{directory, lock, open};

const CHILDREN: usize = 8;
const ROUNDS: u32 = 40;

/// Writes until the log was copied back, so that the connection which does that is open, and the log
/// starts anew, which its header counts.
fn write_until_the_log_starts_anew(backend: &lock_sqlite::SqliteBackend) {
    let log = backend.path().with_extension("db-wal");
    let lock = lock(backend, "written");
    for _ in 0..100_000 {
        lock.acquire().wait().unwrap().release_blocking().unwrap();
        let mut header = [0; 16];
        let file = std::fs::File::open(&log).unwrap();
        file.read_exact_at(&mut header, 0).unwrap();
        assert!(file.metadata().unwrap().len() < 8 << 20, "a long log");
        if header[12..] != [0; 4] {
            return;
        }
    }
    panic!("a log was never copied back");
}

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
    write_until_the_log_starts_anew(&backend);
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
