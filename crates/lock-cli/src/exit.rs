//! Exit codes: those of the command pass through, the rest follow `sysexits.h` and the shells.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use lock_core::ErrorKind;

/// The command line is wrong, or the key is no key.
pub(crate) const USAGE: u8 = 64;
/// The key is in use in a mode that can never be shared with the one asked for.
pub(crate) const MODE_CONFLICT: u8 = 65;
/// The backend cannot be reached, or gave no answer.
pub(crate) const UNAVAILABLE: u8 = 69;
/// A defect, or a surprise from below.
pub(crate) const INTERNAL: u8 = 70;
/// Someone else holds the lock: the default of `--conflict-exit-code`.
pub(crate) const CONTENDED: u8 = 75;
/// The lock was lost while the command ran.
pub(crate) const LOST: u8 = 76;
/// The operating system or the server refused our rights.
pub(crate) const NO_PERMISSION: u8 = 77;
/// The configuration is wrong, or asks for what the backend cannot do.
pub(crate) const CONFIG: u8 = 78;
/// The command is there and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// The code of an error.
pub(crate) fn of_error(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidKey => USAGE,
        ErrorKind::ModeConflict => MODE_CONFLICT,
        ErrorKind::Unavailable | ErrorKind::Indeterminate | ErrorKind::Closed => UNAVAILABLE,
        ErrorKind::Timeout | ErrorKind::Deadlock => CONTENDED,
        ErrorKind::Lost => LOST,
        ErrorKind::PermissionDenied => NO_PERMISSION,
        ErrorKind::InvalidConfig | ErrorKind::Unsupported => CONFIG,
        _ => INTERNAL,
    }
}

/// The code of a command that could not be started.
pub(crate) fn of_spawn(error: &std::io::Error) -> u8 {
    match error.kind() {
        std::io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

/// The code that a shell would report for a command: 128 + n when signal n ended it.
pub(crate) fn of_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(INTERNAL)
}

/// The code of a wait that a signal ended.
pub(crate) fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(INTERNAL)
}
