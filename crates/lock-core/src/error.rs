//! The one error type of every lock.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::{LockKey, Mode, OwnerId};

/// The result of a lock operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for code that must decide what to do next.
///
/// Three questions are kept apart: *what happened* (this kind), *may I try again*
/// ([`Error::is_retryable`]), and *did it take effect* (only [`Indeterminate`](Self::Indeterminate)
/// leaves that open). Contention is not an error: `try_*` methods say `Ok(None)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The wait limit passed before the lock was free. Nothing is held and nothing is queued.
    Timeout,
    /// The lock had been held and can no longer be relied on.
    Lost,
    /// Waiting would have closed a cycle of owners that wait for each other.
    Deadlock,
    /// Another party uses the key in a mode that can never be shared with the requested one.
    ModeConflict,
    /// The backend cannot be reached, or refused for now. Nothing is held.
    Unavailable,
    /// A request was sent and its outcome is unknown. Only release, renewal and user
    /// transactions end like this; an acquire never does.
    Indeterminate,
    /// The lock is in use here in a way that forbids the operation: its registration cannot be
    /// removed while it is held, nor can its name get another backend.
    InUse,
    /// The operating system or the server refused the caller's rights.
    PermissionDenied,
    /// The name breaks the rules of [`LockKey`].
    InvalidKey,
    /// A setting is missing, malformed, or contradicts another one.
    InvalidConfig,
    /// The backend declares that it cannot do this, or is not compiled in.
    Unsupported,
    /// The manager or backend was closed, or belongs to the process before a fork.
    Closed,
    /// Anything else: a defect, or a surprise from below.
    Backend,
}

impl ErrorKind {
    fn summary(self) -> &'static str {
        match self {
            Self::Timeout => "the wait limit passed",
            Self::Lost => "the lock was lost",
            Self::Deadlock => "waiting would deadlock",
            Self::ModeConflict => "the key is in use in another mode",
            Self::Unavailable => "the backend is unavailable",
            Self::Indeterminate => "the outcome is unknown",
            Self::InUse => "in use",
            Self::PermissionDenied => "permission denied",
            Self::InvalidKey => "invalid key",
            Self::InvalidConfig => "invalid configuration",
            Self::Unsupported => "not supported",
            Self::Closed => "closed",
            Self::Backend => "the backend failed",
        }
    }
}

/// One owner in a deadlock, waiting for the next one in the list (the last waits for the first).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlockEdge {
    /// Who waits.
    pub owner: OwnerId,
    /// The key it waits for.
    pub key: LockKey,
    /// The mode it asked for.
    pub mode: Mode,
    /// Where in the code it asked, as `file:line:column`, if that is known.
    pub site: Option<Arc<str>>,
}

impl DeadlockEdge {
    /// One edge of a cycle.
    pub fn new(owner: OwnerId, key: LockKey, mode: Mode, site: Option<Arc<str>>) -> Self {
        Self {
            owner,
            key,
            mode,
            site,
        }
    }
}

/// Why a lock operation failed.
///
/// Opaque, one word wide, cheap to clone, and free of driver types. [`kind`](Self::kind) is for
/// code; `Display` is one line for people and never repeats its [`source`](StdError::source).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    key: Option<LockKey>,
    backend: Option<&'static str>,
    retryable: bool,
    cycle: Vec<DeadlockEdge>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, with one line that says what happened and what to do about it.
    ///
    /// `Unavailable` and `Timeout` start out retryable, every other kind does not.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            key: None,
            backend: None,
            retryable: matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout),
            cycle: Vec::new(),
            source: None,
        }))
    }

    /// A `Deadlock` error that names the whole cycle.
    pub fn deadlock(cycle: Vec<DeadlockEdge>) -> Self {
        use fmt::Write as _;
        let mut message = String::from("waiting would close a cycle: ");
        for (i, edge) in cycle.iter().enumerate() {
            let arrow = if i == 0 { "" } else { ", " };
            let _ = write!(
                message,
                "{arrow}{} waits for `{}` ({})",
                edge.owner, edge.key, edge.mode
            );
            if let Some(site) = &edge.site {
                let _ = write!(message, " at {site}");
            }
        }
        let mut error = Self::new(ErrorKind::Deadlock, message);
        error.edit().cycle = cycle;
        error
    }

    /// An `Unsupported` error: `what` is the thing that `backend` cannot do.
    pub fn unsupported(backend: &'static str, what: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("the {backend} backend does not support {what}"),
        )
        .with_backend(backend)
    }

    /// A `Closed` error for the given backend.
    pub fn closed(backend: &'static str) -> Self {
        Self::new(
            ErrorKind::Closed,
            "closed; build a new manager to go on locking",
        )
        .with_backend(backend)
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Names the key.
    #[must_use]
    pub fn with_key(mut self, key: &LockKey) -> Self {
        self.edit().key = Some(key.clone());
        self
    }

    /// Names the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.edit().backend = Some(backend);
        self
    }

    /// Says where it went wrong, before the message: a setting, for instance.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        let inner = self.edit();
        inner.message = format!("{place}: {}", inner.message);
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.edit().source = Some(Arc::new(source));
        self
    }

    /// States whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.edit().retryable = retryable;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it says for certain that a change of a grant was refused.
    pub(crate) fn changed_nothing(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unsupported | ErrorKind::ModeConflict
        )
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The key, if one was involved.
    pub fn key(&self) -> Option<&LockKey> {
        self.0.key.as_ref()
    }

    /// The backend's name, if one was involved.
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The line without kind, key and backend.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The owners that wait for each other, for a [`Deadlock`](ErrorKind::Deadlock); else empty.
    pub fn cycle(&self) -> &[DeadlockEdge] {
        &self.0.cycle
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.summary())?;
        if let Some(key) = &self.0.key {
            write!(f, " on `{key}`")?;
        }
        if let Some(backend) = self.0.backend {
            write!(f, " [{backend}]")?;
        }
        if !self.0.message.is_empty() {
            write!(f, ": {}", self.0.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("key", &self.0.key)
            .field("backend", &self.0.backend)
            .field("retryable", &self.0.retryable)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
