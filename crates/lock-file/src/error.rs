//! What the operating system says, in the words of the contract.

use std::io;
use std::path::Path;

use lock_core::{Error, ErrorKind, LockKey, Mode};
use rustix::io::Errno;

/// The backend's name, in capabilities and errors.
pub(crate) const NAME: &str = "file";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_backend(NAME)
}

/// A system call on `path` failed. `what` is the end of "cannot …".
pub(crate) fn failed(what: &str, path: &Path, source: impl Into<io::Error>) -> Error {
    let source = source.into();
    let (kind, advice) = classify(&source);
    let message = format!("cannot {what} {}{advice}", path.display());
    error(kind, message).with_source(source)
}

fn classify(source: &io::Error) -> (ErrorKind, &'static str) {
    let errno = source.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => (
            ErrorKind::PermissionDenied,
            "; choose a directory that this user may write to",
        ),
        Some(Errno::LOOP) => (
            ErrorKind::PermissionDenied,
            ": it is a symbolic link, which is never followed; remove it",
        ),
        Some(Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => (
            ErrorKind::InvalidConfig,
            "; choose a directory on a local file system",
        ),
        Some(Errno::NOSPC | Errno::DQUOT) => (
            ErrorKind::Unavailable,
            ": the file system is full; free space on it",
        ),
        Some(Errno::MFILE | Errno::NFILE) => (
            ErrorKind::Unavailable,
            ": too many open files; raise the limit (ulimit -n) or hold fewer locks",
        ),
        Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => (
            ErrorKind::InvalidConfig,
            ": this file system has no locks; choose a directory on a local one",
        ),
        Some(Errno::NOENT) => (ErrorKind::Unavailable, ": it is gone"),
        _ => (ErrorKind::Backend, ""),
    }
}

/// Whether it was for want of descriptors.
pub(crate) fn is_want_of_files(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let errno = source
        .and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error())
        .map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
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

/// The error for a file that is in the way.
pub(crate) fn foreign_file(path: &Path, why: &str) -> Error {
    error(
        ErrorKind::Backend,
        format!("{} {why}; use a directory for locks alone", path.display()),
    )
}
