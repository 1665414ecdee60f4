//! The backends that a configuration can name.

use std::fmt;

use lock_core::{Error, ErrorKind, Result, Scope};

use crate::nearest::did_you_mean;

/// A backend of this library, by its name in a configuration.
///
/// All names are known in every build, so that an error can tell a typo from a missing feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Tasks and threads of one process.
    Threading,
    /// Processes of one host, by kernel file locks.
    File,
    /// Processes of one host, by one database file.
    Sqlite,
    /// Every host that reaches a Redis server.
    Redis,
    /// Every host that reaches an etcd cluster.
    Etcd,
}

/// Whether a build has a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Availability {
    CompiledIn,
    FeatureOff,
    NotOnThisSystem,
}

impl BackendKind {
    /// All of them, from the narrowest scope to the widest.
    pub const ALL: [Self; 5] = [
        Self::Threading,
        Self::File,
        Self::Sqlite,
        Self::Redis,
        Self::Etcd,
    ];

    /// Its name in configurations, errors and metrics; also the feature that brings it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Threading => "threading",
            Self::File => "file",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
        }
    }

    /// How far its locks exclude.
    pub fn scope(self) -> Scope {
        match self {
            Self::Threading => Scope::Process,
            Self::File | Self::Sqlite => Scope::Host,
            Self::Redis | Self::Etcd => Scope::Network,
        }
    }

    /// The backend of a name, spelled exactly.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether this build has it.
    pub fn is_available(self) -> bool {
        self.availability() == Availability::CompiledIn
    }

    fn availability(self) -> Availability {
        let compiled_in = |feature_is_on| match feature_is_on {
            true => Availability::CompiledIn,
            false => Availability::FeatureOff,
        };
        match self {
            Self::Threading => compiled_in(cfg!(feature = "threading")),
            Self::File if cfg!(unix) => compiled_in(cfg!(feature = "file")),
            Self::Sqlite if cfg!(unix) => compiled_in(cfg!(feature = "sqlite")),
            Self::File | Self::Sqlite => Availability::NotOnThisSystem,
            Self::Etcd => compiled_in(cfg!(feature = "etcd")),
            Self::Redis => compiled_in(cfg!(feature = "redis")),
        }
    }

    /// `Unsupported`, with what to do, unless this build has the backend. `place` is where it is
    /// named.
    pub(crate) fn require(self, place: &str) -> Result<()> {
        let remedy = match self.availability() {
            Availability::CompiledIn => return Ok(()),
            Availability::FeatureOff => {
                format!("is not compiled in: enable feature `{self}` of lock-manager")
            }
            Availability::NotOnThisSystem => "is not available on this operating system".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{place} wants backend `{self}`, which {remedy} (available: {})",
                available(&[]).join(", ")
            ),
        )
        .with_backend(self.name()))
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AsRef<str> for BackendKind {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// The names that can be used in this build, with those plugged in.
pub(crate) fn available<'a>(plugged: &[&'a str]) -> Vec<&'a str> {
    BackendKind::ALL
        .into_iter()
        .filter(|kind| kind.is_available())
        .map(|kind| -> &'a str { kind.name() })
        .chain(plugged.iter().copied())
        .collect()
}

/// The error for a name that is no backend, named at `place`.
pub(crate) fn unknown_backend(place: &str, name: &str, plugged: &[&str]) -> Error {
    let known = BackendKind::ALL.iter().map(|kind| kind.name());
    let mut candidates: Vec<&str> = known.collect();
    candidates.extend(plugged);
    let hint = did_you_mean(name, candidates);
    Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "{place}: `{}` is no backend{hint}; write one of {}, or plug your own in with \
             `LockManager::builder`",
            name.escape_debug(),
            available(plugged).join(", ")
        ),
    )
}
