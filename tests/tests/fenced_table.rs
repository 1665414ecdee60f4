//! The SQL statements of `FencedTable` on a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lock_core::{FencedTable, FencingNumber, FencingToken};
use rusqlite::{Connection, Transaction, params};

fn token(epoch: u32, base: u64) -> FencingToken {
    FencingToken::new(epoch, FencingNumber::from_base(base).unwrap())
}

/// Writes as the documentation of `FencedTable` says; returns whether it was let.
fn write(database: &mut Connection, token: FencingToken, value: &str) -> bool {
    let transaction: Transaction<'_> = database.transaction().unwrap();
    let number = i64::try_from(token.number().get()).unwrap();
    let rows = transaction
        .execute(FencedTable::ADVANCE, params!["page", token.epoch(), number])
        .unwrap();
    if rows == 1 {
        transaction
            .execute("UPDATE page SET value = ?1", params![value])
            .unwrap();
        transaction.commit().unwrap();
    }
    rows == 1
}

#[test]
fn a_late_writer_changes_no_row() {
    let mut database = Connection::open_in_memory().unwrap();
    database.execute_batch(FencedTable::CREATE).unwrap();
    database
        .execute_batch("CREATE TABLE page (value TEXT); INSERT INTO page VALUES ('first')")
        .unwrap();

    assert!(write(&mut database, token(0, 7), "seven"));
    assert!(write(&mut database, token(0, 7), "seven again"));
    assert!(!write(&mut database, token(0, 6), "six, late"));
    assert!(write(&mut database, token(1, 1), "a new epoch"));
    let largest = token(0, FencingNumber::MAX_BASE);
    assert!(!write(&mut database, largest, "the old epoch, late"));

    let value: String = database
        .query_row("SELECT value FROM page", [], |row| row.get(0))
        .unwrap();
    assert_eq!(value, "a new epoch");
}
