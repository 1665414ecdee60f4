//! What the operating system says about files, in the words of the contract.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::{Error, ErrorKind};

/// The error for a system call on `path` that failed. `what` is the end of "cannot …".
pub fn failed(what: &str, path: &Path, source: impl Into<io::Error>) -> Error {
    let source = source.into();
    let (kind, advice) = classify(&source);
    let message = format!("cannot {what} {}{advice}", path.display());
    Error::new(kind, message).with_source(source)
}

/// Whether it was for want of descriptors.
pub fn is_want_of_files(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let errno = source
        .and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error())
        .map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// The error for a file that is in the way.
pub fn foreign_file(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Backend,
        format!("{} {why}; use a directory for locks alone", path.display()),
    )
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
