//! Files that cannot be used, files that disappear, and file systems that are full.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use lock_core::{ErrorKind, LockBackend, LossReason, Released, block_on};
use lock_sqlite::{ApplicationDatabase, SqliteBackend, SqliteConfig};
use rusqlite::Connection;
use support::{Mounted, directory, eventually, lock, open, skip};

fn refused(config: SqliteConfig) -> (ErrorKind, String) {
    let error = SqliteBackend::open(config).unwrap_err();
    (error.kind(), error.to_string())
}

/// Refused, and byte for byte what it was.
fn refused_and_untouched(path: &Path) -> (ErrorKind, String) {
    let before = fs::read(path).unwrap();
    let refusal = refused(SqliteConfig::at(path));
    assert_eq!(fs::read(path).unwrap(), before, "{refusal:?}");
    refusal
}

fn application_database(path: &Path, journal: &str) {
    let connection = Connection::open(path).unwrap();
    connection
        .pragma_update(None, "journal_mode", journal)
        .unwrap();
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (7);";
    connection.execute_batch(table).unwrap();
}

#[test]
fn what_is_no_database_of_ours_is_refused_and_left_as_it_was() {
    let dir = directory();
    let rubbish = dir.path().join("rubbish");
    fs::write(&rubbish, "mine ".repeat(1000)).unwrap();
    assert_eq!(refused_and_untouched(&rubbish).0, ErrorKind::InvalidConfig);

    let foreign = dir.path().join("foreign.db");
    application_database(&foreign, "delete");
    let (kind, text) = refused_and_untouched(&foreign);
    assert_eq!(kind, ErrorKind::InvalidConfig);
    assert!(
        text.contains("`orders`") && text.contains("allow"),
        "{text}"
    );

    let newer = dir.path().join("newer.db");
    drop(open(&newer));
    let connection = Connection::open(&newer).unwrap();
    connection
        .execute_batch("UPDATE lock_store SET version = 99; PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(connection);
    let (kind, text) = refused_and_untouched(&newer);
    assert_eq!(kind, ErrorKind::InvalidConfig);
    assert!(text.contains("format 99"), "{text}");
}

#[test]
fn a_running_backend_refuses_to_begin_in_a_database_that_was_migrated_meanwhile() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let backend = open(&path);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE lock_store SET version = 99", ())
        .unwrap();
    let error = lock(&backend, "x").acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[test]
fn a_damaged_database_is_told_and_not_repaired() {
    let dir = directory();
    let path = dir.path().join("l.db");
    drop(open(&path));
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[100..] {
        *byte ^= 0x5a;
    }
    fs::write(&path, &bytes).unwrap();
    let (kind, text) = refused_and_untouched(&path);
    assert_eq!(kind, ErrorKind::Backend, "{text}");
    assert!(text.contains("damaged"), "{text}");
}

#[test]
fn a_locked_database_is_unavailable_after_the_limit() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let mut config = SqliteConfig::at(&path);
    config.busy_limit = Duration::from_millis(100);
    let backend = SqliteBackend::open(config).unwrap();
    drop(lock(&backend, "warm").acquire().wait().unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = lock(&backend, "x").acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("busy_limit"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    assert!(lock(&backend, "x").try_acquire().wait().unwrap().is_some());
}

#[test]
fn a_release_that_cannot_be_written_is_owed_and_paid_later() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let mut config = SqliteConfig::at(&path);
    config.busy_limit = Duration::from_millis(20);
    let backend = SqliteBackend::open(config).unwrap();
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = guard.release_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    eventually("the debt is shown", || {
        support::report(&backend, "x").is_some_and(|report| !report.debts.is_empty())
    });
    other.execute_batch("ROLLBACK").unwrap();
    eventually("the debt is paid", || {
        support::report(&backend, "x").is_none()
    });
    assert!(lock(&backend, "x").try_acquire().wait().unwrap().is_some());
}

#[test]
fn an_application_database_takes_the_tables_only_with_a_word_and_in_wal_mode() {
    let dir = directory();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let allowed = |path: &Path| {
        let mut config = SqliteConfig::at(path);
        config.application_database = ApplicationDatabase::Allow;
        config
    };
    let rollback = dir.path().join("rollback.db");
    application_database(&rollback, "delete");
    let (kind, text) = refused(allowed(&rollback));
    assert_eq!(kind, ErrorKind::InvalidConfig);
    assert!(text.contains("journal_mode"), "{text}");

    let path = dir.path().join("app.db");
    application_database(&path, "wal");
    let backend = SqliteBackend::open(allowed(&path)).unwrap();
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    let application = Connection::open(&path).unwrap();
    application
        .execute("INSERT INTO orders VALUES (8)", ())
        .unwrap();
    drop(guard);
    let orders: i64 = application
        .query_row("SELECT sum(id) FROM orders", (), |row| row.get(0))
        .unwrap();
    assert_eq!(orders, 15);
}

#[test]
fn links_and_directories_of_others_are_refused() {
    let dir = directory();
    let path = dir.path().join("locks/l.db");
    drop(open(&path));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let link = dir.path().join("locks/link.db");
    symlink(&path, &link).unwrap();
    let (kind, text) = refused(SqliteConfig::at(&link));
    assert_eq!(kind, ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("symbolic link"), "{text}");

    // Planted where the sessions go: the target is not touched.
    let planted = dir.path().join("locks/planted.db");
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    symlink(&target, dir.path().join("locks/planted.db-sessions")).unwrap();
    let (kind, text) = refused(SqliteConfig::at(&planted));
    assert_eq!(kind, ErrorKind::PermissionDenied, "{text}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);

    fs::set_permissions(dir.path().join("locks"), fs::Permissions::from_mode(0o777)).unwrap();
    let (kind, text) = refused(SqliteConfig::at(&path));
    assert_eq!(kind, ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("chmod 700"), "{text}");
}

#[test]
fn a_database_that_is_deleted_while_held_is_a_loss_and_a_new_one_takes_over() {
    let dir = directory();
    let path = dir.path().join("locks/l.db");
    let backend = open(&path);
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    let before = guard.fencing_token().unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(
        guard.lost().wait_for(Duration::from_secs(20)),
        Some(LossReason::Revoked)
    );
    assert_eq!(guard.release_blocking().unwrap(), Released::AlreadyLost);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    assert!(guard.fencing_token().unwrap() > before, "fencing went back");
    assert!(
        lock(&open(&path), "x")
            .try_acquire()
            .wait()
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_session_file_that_is_deleted_while_held_is_a_loss() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let backend = open(&path);
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    for file in fs::read_dir(dir.path().join("l.db-sessions")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert_eq!(
        guard.lost().wait_for(Duration::from_secs(20)),
        Some(LossReason::Revoked)
    );
    drop(guard);
    assert!(lock(&backend, "x").acquire().wait().is_ok());
}

#[test]
fn a_full_file_system_refuses_and_goes_on_once_there_is_room() {
    let dir = directory();
    let Some(mounted) = Mounted::tmpfs(dir.path(), "size=256k,mode=700") else {
        skip("only root can mount a small file system");
        return;
    };
    let path = mounted.path().join("l.db");
    let backend = open(&path);
    let held = lock(&backend, "held").acquire().wait().unwrap();
    let filler = mounted.path().join("filler");
    // As large as it gets.
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let refusal = (0..1000).find_map(|number| {
        let acquire = lock(&backend, &format!("{number} {}", "x".repeat(500))).acquire();
        acquire.wait().map(lock_core::LockGuard::leak).err()
    });
    let error = refusal.expect("a full file system took a thousand keys");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(held.is_held(), "a full file system is no loss");
    fs::remove_file(&filler).unwrap();
    eventually("there is room", || {
        lock(&backend, "y").acquire().wait().is_ok()
    });
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
}

#[test]
fn a_read_only_file_system_is_refused() {
    let dir = directory();
    let Some(mounted) = Mounted::tmpfs(dir.path(), "size=1m,mode=700") else {
        skip("only root can mount a file system");
        return;
    };
    let path = mounted.path().join("l.db");
    drop(open(&path));
    mounted.remount_read_only();
    let (kind, text) = refused(SqliteConfig::at(&path));
    assert_eq!(kind, ErrorKind::PermissionDenied, "{text}");
}

#[test]
fn swept_keys_leave_nothing_but_their_numbers() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let backend = open(&path);
    let number = |name: &str| {
        let guard = lock(&backend, name).acquire().wait().unwrap();
        guard.fencing_token().unwrap()
    };
    let before = (0..20).map(|_| number("x")).max().unwrap();
    let held = lock(&backend, "held").acquire().wait().unwrap();
    assert_eq!(block_on(backend.sweep()).unwrap(), 1);
    assert!(number("x") > before, "a sweep took a number back");
    assert!(number("new") > before, "a new key began below the floor");
    assert!(held.is_held());
    assert_eq!(held.release_blocking().unwrap(), Released::Released);
    block_on(backend.close()).unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("l.db-sessions"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn numbers_rise_over_a_power_cut() {
    let dir = directory();
    let path = dir.path().join("l.db");
    let before = {
        let backend = open(&path);
        let guard = lock(&backend, "x").acquire().wait().unwrap();
        guard.fencing_token().unwrap().number()
    };
    // What a power cut leaves: an earlier state, and then another boot; with the clock set back.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "UPDATE lock_key SET token = token - 1000;
             UPDATE lock_store SET boot = 'an earlier one', floor = floor - 1000;",
        )
        .unwrap();
    drop(connection);
    for name in ["x", "y"] {
        let backend = open(&path);
        let guard = lock(&backend, name).acquire().wait().unwrap();
        assert!(guard.fencing_token().unwrap().number() > before, "{name}");
    }
}
