//! The checker for a row in a SQL database.

/// Statements that make a table check fencing tokens.
///
/// Run [`CREATE`](Self::CREATE) once. In each transaction that writes what the lock protects, run
/// [`ADVANCE`](Self::ADVANCE) first, with the resource's name, the token's epoch and number, and
/// roll back unless exactly one row was changed. Written for SQLite 3.24 and PostgreSQL 9.5 or
/// later; both lock the row, so comparing and writing are one step.
#[derive(Debug)]
pub struct FencedTable;

impl FencedTable {
    /// Creates the table `lock_fence`.
    pub const CREATE: &str = include_str!("create.sql");
    /// Parameters: resource, epoch, number. Changes one row, or none if the token is stale.
    pub const ADVANCE: &str = include_str!("advance.sql");
}
