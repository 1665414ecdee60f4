//! What the operating system says, in the words of the contract.

use std::io;
use std::path::Path;

use lock_core::{Error, ErrorKind, LockKey, Mode, host};

/// The backend's name, in capabilities and errors.
pub(crate) const NAME: &str = "file";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_backend(NAME)
}

/// What the parts that backends share say, as this backend's.
pub(crate) fn named(error: Error) -> Error {
    error.with_backend(NAME)
}

/// A system call on `path` failed. `what` is the end of "cannot …".
pub(crate) fn failed(what: &str, path: &Path, source: impl Into<io::Error>) -> Error {
    host::failed(what, path, source).with_backend(NAME)
}

/// The error for a mode that can never take turns with the one in use.
pub(crate) fn mode_conflict(key: &LockKey, wanted: Mode, other: Option<Mode>) -> Error {
    let other = other.map_or_else(|| "another mode".to_owned(), |mode| mode.to_string());
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

/// The error for a wait that its own caller ended.
pub(crate) fn abandoned() -> Error {
    error(ErrorKind::Closed, "the attempt was abandoned")
}

/// The error for a file that is in the way.
pub(crate) fn foreign_file(path: &Path, why: &str) -> Error {
    host::foreign_file(path, why).with_backend(NAME)
}
