//! What the servers say, in the words of the contract.

use lock_core::{Error, ErrorKind, LockKey, Mode};
use tonic::{Code, Status};

/// The backend's name, in capabilities and errors.
pub(crate) const NAME: &str = "etcd";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_backend(NAME)
}

/// The error for a grant that is not ours any more.
pub(crate) fn not_held(key: &LockKey) -> Error {
    error(ErrorKind::Lost, "this attempt no longer holds it").with_key(key)
}

/// The error for a mode that can never take turns with the one in use.
pub(crate) fn mode_conflict(key: &LockKey, wanted: Mode, other: Mode) -> Error {
    error(
        ErrorKind::ModeConflict,
        format!("asked for {wanted} while {other} is held or waited for; use one mode per key"),
    )
    .with_key(key)
}

/// A request that brought no answer to work with.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Whether it may have been carried out all the same.
    pub(crate) in_doubt: bool,
    /// Whether the same request may succeed later without anybody changing anything.
    pub(crate) passing: bool,
    pub(crate) reason: Reason,
    error: Error,
}

/// What a caller may have to treat apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The lease of a request is gone.
    NoLease,
    /// The token of the connection's user is old or gone.
    Token,
    /// The server cannot help, another may.
    Endpoint,
    Other,
}

impl Failure {
    /// Nothing was sent.
    pub(crate) fn unsent(message: impl Into<String>) -> Self {
        Self {
            in_doubt: false,
            passing: true,
            reason: Reason::Endpoint,
            error: error(ErrorKind::Unavailable, message),
        }
    }

    /// It was sent, and nobody knows what became of it.
    pub(crate) fn unanswered(message: impl Into<String>) -> Self {
        Self {
            in_doubt: true,
            ..Self::unsent(message)
        }
    }

    /// The session of a request is over, and all that stood under it.
    pub(crate) fn no_lease() -> Self {
        Self {
            in_doubt: false,
            passing: true,
            reason: Reason::NoLease,
            error: error(ErrorKind::Lost, "the session was lost"),
        }
    }

    /// It is no use to try again.
    pub(crate) fn lasting(error: Error) -> Self {
        Self {
            in_doubt: false,
            passing: false,
            reason: Reason::Other,
            error,
        }
    }

    /// A server's refusal, or the end of the connection.
    pub(crate) fn of(status: &Status, endpoint: &str) -> Self {
        let text = status.message();
        if let Some(refusal) = refusal(text) {
            let (kind, in_doubt, passing, reason, advice) = refusal;
            let message = format!("{endpoint} says `{text}`{advice}");
            return Self {
                in_doubt,
                passing,
                reason,
                error: error(kind, message).with_retryable(passing),
            };
        }
        if is_connect_error(status) {
            return Self::unsent(format!("cannot connect to {endpoint}: {}", cause(status)));
        }
        match status.code() {
            Code::PermissionDenied => Self::lasting(error(
                ErrorKind::PermissionDenied,
                format!("{endpoint} says `{text}`"),
            )),
            Code::Unimplemented => Self::lasting(error(
                ErrorKind::Backend,
                format!("{endpoint} does not speak etcd's version 3 API: {text}"),
            )),
            code => Self::unanswered(format!(
                "{endpoint} broke off: {code:?}, {}{}",
                cause(status),
                // A server closes the connection without a word.
                if endpoint.starts_with("https") {
                    "; if it never works, the server may not accept `tls.certificate`"
                } else {
                    ""
                }
            )),
        }
    }

    /// What a caller hears whose request changed nothing for good.
    pub(crate) fn into_error(self) -> Error {
        self.error
    }

    /// What a caller hears whose request may have been carried out.
    pub(crate) fn into_outcome(self) -> Error {
        if self.in_doubt {
            error(
                ErrorKind::Indeterminate,
                format!(
                    "the reply was lost, the backend goes on: {}",
                    self.error.message()
                ),
            )
        } else {
            self.error
        }
    }
}

/// Kind, in doubt, passing, reason, advice.
type Refusal = (ErrorKind, bool, bool, Reason, &'static str);

/// What the servers say in words of their own; the codes alone do not tell these apart.
fn refusal(text: &str) -> Option<Refusal> {
    use ErrorKind::{PermissionDenied, Unavailable};
    let text = text.strip_prefix("etcdserver: ").or_else(|| {
        // Authentication speaks for itself.
        text.starts_with("auth: ").then_some(text)
    })?;
    Some(match text {
        "requested lease not found" => (ErrorKind::Lost, false, true, Reason::NoLease, ""),
        "invalid auth token" | "revision of auth store is old" => {
            (PermissionDenied, false, true, Reason::Token, "")
        }
        "permission denied" => {
            let advice = "; grant the user reading and writing under the configured prefix";
            (PermissionDenied, false, false, Reason::Other, advice)
        }
        "user name is empty" => {
            let advice = "; the server wants a user, set `user` and `password`";
            (PermissionDenied, false, false, Reason::Other, advice)
        }
        "authentication failed, invalid user ID or password" | "authentication is not enabled" => {
            let advice = "; correct `user` and `password`";
            (PermissionDenied, false, false, Reason::Other, advice)
        }
        "no leader" => (Unavailable, false, true, Reason::Endpoint, ""),
        "too many requests" => (Unavailable, false, true, Reason::Other, ""),
        "mvcc: database space exceeded" => {
            let advice = "; compact and defragment it, then disarm the alarm";
            (Unavailable, false, false, Reason::Other, advice)
        }
        "server stopped" => (Unavailable, true, true, Reason::Endpoint, ""),
        _ if text.starts_with("request timed out") || text == "leader changed" => {
            (Unavailable, true, true, Reason::Endpoint, "")
        }
        _ => (ErrorKind::Backend, false, false, Reason::Other, ""),
    })
}

fn is_connect_error(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost cause, which says most.
fn cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::error::Error::source(status).is_none() {
        status.message().to_owned()
    } else {
        cause.to_string()
    }
}
