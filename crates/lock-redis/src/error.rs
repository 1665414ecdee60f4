//! What the server and its client library say, in the words of the contract.

use lock_core::{Error, ErrorKind};
use redis::{RedisError, ServerErrorKind};

/// The backend's name, in capabilities and errors.
pub(crate) const NAME: &str = "redis";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_backend(NAME)
}

pub(crate) fn unavailable(what: &str) -> Error {
    error(
        ErrorKind::Unavailable,
        format!("the server did not answer {what} in time"),
    )
}

pub(crate) fn indeterminate(what: &str) -> Error {
    error(
        ErrorKind::Indeterminate,
        format!("the reply to {what} was lost; the backend goes on until it is settled"),
    )
}

pub(crate) fn ended() -> Error {
    error(ErrorKind::Closed, "this attempt is over; start a new one")
}

pub(crate) fn lost() -> Error {
    error(ErrorKind::Lost, "the server no longer has us as the holder")
}

/// What to do about an answer that is an error.
#[derive(Debug)]
pub(crate) enum Remedy {
    /// Send the whole script: the server does not know it by its digest.
    SendScript,
    /// The slot has moved to another node.
    Moved(String),
    /// Ask another node this once.
    Ask(String),
    /// The same request may be answered a little later.
    Later,
    /// The connection is of no use any more: it broke, or leads to a replica.
    Reconnect,
    /// Nothing helps but a person.
    Refuse(Error),
}

/// Sorts an answer that is an error.
pub(crate) fn remedy(failure: &RedisError) -> Remedy {
    let text = failure.to_string();
    let node = || failure.redirect_node().map(|(node, _)| node.to_owned());
    match failure.kind() {
        redis::ErrorKind::Server(ServerErrorKind::NoScript) => return Remedy::SendScript,
        redis::ErrorKind::Server(ServerErrorKind::Moved) => {
            return node().map_or(Remedy::Later, Remedy::Moved);
        }
        redis::ErrorKind::Server(ServerErrorKind::Ask) => {
            return node().map_or(Remedy::Later, Remedy::Ask);
        }
        redis::ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => return Remedy::Later,
        redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => return Remedy::Reconnect,
        redis::ErrorKind::Server(ServerErrorKind::CrossSlot) => {
            return Remedy::Refuse(error(
                ErrorKind::Unsupported,
                "the keys lie on different nodes of the cluster; take them one by one",
            ));
        }
        _ => {}
    }
    // Older servers hide the code of an inner command in the text of the script's error.
    let says = |word: &str| text.contains(word);
    if says("BUSY ") || failure.code() == Some("BUSY") || says("NOREPLICAS") {
        Remedy::Later
    } else if says("READONLY ") || says("-READONLY") {
        Remedy::Reconnect
    } else if is_permission(failure, &text) {
        Remedy::Refuse(permission(&text))
    } else if says("OOM ") || failure.code() == Some("OOM") {
        Remedy::Refuse(error(
            ErrorKind::Unavailable,
            "the server is out of memory (maxmemory); free some, or raise the limit",
        ))
    } else if says("WRONGTYPE") {
        Remedy::Refuse(error(
            ErrorKind::Backend,
            "a key of the lock holds data of another type; keep other data out of the prefix",
        ))
    } else if is_of_the_connection(failure) {
        Remedy::Reconnect
    } else {
        Remedy::Refuse(error(
            ErrorKind::Backend,
            format!("the server refused: {text}"),
        ))
    }
}

fn is_of_the_connection(failure: &RedisError) -> bool {
    failure.is_io_error()
        || failure.is_connection_dropped()
        || failure.is_timeout()
        || failure.is_unrecoverable_error()
}

fn is_permission(failure: &RedisError, text: &str) -> bool {
    matches!(
        failure.kind(),
        redis::ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || matches!(failure.code(), Some("NOPERM" | "NOAUTH"))
        || text.contains("NOPERM")
        || text.contains("ACL failure")
        || text.contains("can't run this command")
        || text.contains("has no permissions")
        || text.contains("can't access at least one")
}

fn permission(text: &str) -> Error {
    error(
        ErrorKind::PermissionDenied,
        format!("the user lacks a right, see the ACL line in the documentation: {text}"),
    )
}

/// A connection could not be made. `place` names the server without its secrets.
pub(crate) fn connecting(place: &str, failure: &RedisError) -> Error {
    let text = failure.to_string();
    let (kind, message) = match failure.kind() {
        redis::ErrorKind::AuthenticationFailed => (
            ErrorKind::PermissionDenied,
            format!("{place} refused the username or password"),
        ),
        redis::ErrorKind::RESP3NotSupported => return too_old(place, "before 6.0"),
        redis::ErrorKind::InvalidClientConfig => {
            (ErrorKind::InvalidConfig, format!("{place}: {text}"))
        }
        _ if text.contains("WRONGPASS") || text.contains("NOAUTH") => (
            ErrorKind::PermissionDenied,
            format!("{place} refused the username or password"),
        ),
        _ if text.contains("unknown command") && text.contains("HELLO") => {
            return too_old(place, "before 6.0");
        }
        _ if text.contains("DB index is out of range") => (
            ErrorKind::InvalidConfig,
            format!("{place} has no database of this number"),
        ),
        _ if is_permission(failure, &text) => return permission(&text),
        _ if text.contains("certificate") || text.contains("InvalidContentType") => (
            ErrorKind::InvalidConfig,
            format!("{place}: TLS failed: {text}"),
        ),
        _ if failure.is_connection_refusal() => (
            ErrorKind::Unavailable,
            format!("{place} refused the connection; is the server running there?"),
        ),
        _ if failure.is_timeout() => (
            ErrorKind::Unavailable,
            format!("{place} did not answer in time"),
        ),
        _ => (
            ErrorKind::Unavailable,
            format!("cannot connect to {place}: {text}"),
        ),
    };
    error(kind, message)
}

/// The server's version is not enough.
pub(crate) fn too_old(place: &str, version: &str) -> Error {
    error(
        ErrorKind::Unsupported,
        format!("{place} runs Redis {version}; 6.2 or later is needed"),
    )
}

/// Whether trying again without anybody's help may succeed.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}
