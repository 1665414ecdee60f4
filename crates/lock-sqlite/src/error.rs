//! What SQLite says, in the words of the contract.

use std::path::Path;

use lock_core::{Error, ErrorKind, LockKey, Mode};
use rusqlite::ffi::{self, ErrorCode};

/// The backend's name, in capabilities and errors.
pub(crate) const NAME: &str = "sqlite";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_backend(NAME)
}

/// What the parts that backends share say, as this backend's.
pub(crate) fn named(error: Error) -> Error {
    error.with_backend(NAME)
}

/// SQLite refused something about the file at `path`.
pub(crate) fn failed(path: &Path, source: rusqlite::Error) -> Error {
    let (kind, what) = classify(&source);
    error(kind, format!("{}: {what}", path.display())).with_source(source)
}

/// Whether another program kept the file locked.
pub(crate) fn is_busy(source: &rusqlite::Error) -> bool {
    matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

fn classify(source: &rusqlite::Error) -> (ErrorKind, &'static str) {
    let extended = source.sqlite_error().map_or(0, |error| error.extended_code);
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            "another program keeps the database locked; find it, or raise `busy_limit`",
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Unavailable,
            "the file system is full; free space on it",
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            ErrorKind::PermissionDenied,
            "this process may not write to it; choose a file and a directory that it may write to",
        ),
        Some(ErrorCode::CannotOpen) if extended == ffi::SQLITE_CANTOPEN_SYMLINK => (
            ErrorKind::PermissionDenied,
            "it is a symbolic link, which is never followed; write where it leads",
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            "it cannot be opened; see whether its directory may be written to, and the limit of \
             open files (ulimit -n)",
        ),
        Some(ErrorCode::NotADatabase) => (
            ErrorKind::InvalidConfig,
            "it is no SQLite database; set another path",
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Backend,
            "the database is damaged; stop all programs that use it, remove it, and raise \
             `fencing_epoch`",
        ),
        // Writing to a map of a full file system, for one.
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => (
            ErrorKind::Unavailable,
            "the file system failed; see whether it is full",
        ),
        Some(ErrorCode::ConstraintViolation) => (
            ErrorKind::Backend,
            "the fencing numbers of the key are used up; use another key, or a new file and a raised \
             `fencing_epoch`",
        ),
        _ => (ErrorKind::Backend, "the database refused a statement"),
    }
}

/// The error for a mode that can never take turns with the one in use.
pub(crate) fn mode_conflict(key: &LockKey, wanted: Mode, other: Mode) -> Error {
    error(
        ErrorKind::ModeConflict,
        format!("asked for {wanted} while {other} is held or waited for; use one mode per key"),
    )
    .with_key(key)
}

/// The error for a grant that is not ours any more.
pub(crate) fn not_held(key: &LockKey) -> Error {
    error(ErrorKind::Lost, "this attempt no longer holds it").with_key(key)
}

/// The error for a wait that was ended in the database.
pub(crate) fn place_is_gone(key: &LockKey) -> Error {
    let message = "the place in the queue was deleted from the database; acquire again";
    error(ErrorKind::Unavailable, message).with_key(key)
}
