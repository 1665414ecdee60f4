//! The settings of a deployment. This module and its parts alone know the configuration library.

mod deadlock;
mod explain;
mod loader;
mod section;

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use lock_core::{AcquireOptions, Capabilities, LeaseKind, LockKey, Result};
use serde::{Deserialize, Serialize};

#[cfg(feature = "etcd")]
pub use lock_etcd::{EtcdConfig, EtcdTls, Secret};
#[cfg(all(unix, feature = "file"))]
pub use lock_file::FileConfig;
#[cfg(feature = "redis")]
pub use lock_redis::{Protocol, RedisConfig, SentinelConfig, TlsConfig, Topology, Urls};
#[cfg(all(unix, feature = "sqlite"))]
pub use lock_sqlite::{ApplicationDatabase, SqliteConfig};

#[cfg(all(unix, any(feature = "file", feature = "sqlite")))]
pub use lock_core::host::NetworkFilesystem;

pub use deadlock::DeadlockConfig;
pub use loader::ConfigLoader;
pub use section::{ThreadingConfig, UnavailableSection};

use crate::deployment::{Deployment, Need, Pool};
use crate::kind::BackendKind;
use crate::routes::{self, Route};
use loader::Origin;

/// The settings of a deployment.
///
/// Written in TOML, YAML or JSON and read by [`Config::from_file`] or [`Config::loader`], or built
/// in code. Every setting has a default; the default of all is in-process locks.
///
/// ```
/// use lock_manager::{Config, Pool};
///
/// let mut config = Config::default();
/// config.pool = Some(Pool::Threads);
/// config.namespace = "shop".into();
/// # let _ = config;
/// ```
///
/// Durations are strings such as `"30s"`, `"5m"` or `"1h 30m"`. A setting that does not exist, or has
/// no sensible value, is an error that names the file, the setting and what to write.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// How the workers run. Default: not stated; then the number of processes and hosts alone
    /// decide, and a configured backend is used even if a narrower one would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// How many worker processes run on one host. Default: one, unless the pool says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_processes: Option<NonZeroU32>,
    /// How many hosts they run on. Default: one, unless the pool runs several processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<NonZeroU32>,
    /// The backend's name. Default: chosen by the pool from those that are configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Keeps applications that share a backend apart. Default: the empty namespace.
    pub namespace: String,
    /// Raise it when the backend was changed, restored or wiped: fencing tokens of the new epoch
    /// are above all old ones. Default: 0.
    pub fencing_epoch: u32,
    /// The options of acquires that bring none of their own.
    pub acquire: AcquireDefaults,
    /// Deadlock detection. Default: off.
    pub deadlock: DeadlockConfig,
    /// Another backend for some keys; the first rule that matches decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// In-process locks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threading: Option<ThreadingConfig>,
    /// Kernel file locks.
    #[cfg(all(unix, feature = "file"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileConfig>,
    #[cfg(not(all(unix, feature = "file")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<UnavailableSection>,
    /// One SQLite database.
    #[cfg(all(unix, feature = "sqlite"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteConfig>,
    #[cfg(not(all(unix, feature = "sqlite")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlite: Option<UnavailableSection>,
    /// Locks on a Redis server.
    #[cfg(feature = "redis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisConfig>,
    #[cfg(not(feature = "redis"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<UnavailableSection>,
    /// Locks on an etcd cluster.
    #[cfg(feature = "etcd")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdConfig>,
    #[cfg(not(feature = "etcd"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<UnavailableSection>,
    /// Where the settings were read, for errors that turn up later.
    #[serde(skip)]
    origin: Origin,
}

/// The options of acquires that bring none of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AcquireDefaults {
    /// How long to wait; `"0s"` is one attempt. Default: no limit.
    #[serde(
        with = "lock_core::duration_text::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub wait_limit: Option<Duration>,
    /// The life of a lease between renewals, where the backend has leases. Default: the backend's.
    #[serde(
        with = "lock_core::duration_text::positive",
        skip_serializing_if = "Option::is_none"
    )]
    pub ttl: Option<Duration>,
    /// Higher goes first. Default: 0.
    pub priority: i8,
    /// Gives a lock up, as lost, when it is held longer than this. Default: no bound.
    #[serde(
        with = "lock_core::duration_text::positive",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_hold: Option<Duration>,
    /// Keeps a key closed after an unclean loss, where the backend can do it. Default: none.
    #[serde(
        with = "lock_core::duration_text::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub lock_delay: Option<Duration>,
}

impl Config {
    /// Reads one file: TOML, YAML or JSON by its extension. No environment variable is read.
    ///
    /// # Errors
    /// `InvalidConfig` with the file, the setting, and what to write.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::loader().file(path).load()
    }

    /// Reads several files, profiles, or environment variables.
    pub fn loader() -> ConfigLoader {
        ConfigLoader::default()
    }

    /// Whether a backend has a section of its own.
    pub fn has_section(&self, kind: BackendKind) -> bool {
        match kind {
            BackendKind::Threading => self.threading.is_some(),
            BackendKind::File => self.file.is_some(),
            BackendKind::Sqlite => self.sqlite.is_some(),
            BackendKind::Redis => self.redis.is_some(),
            BackendKind::Etcd => self.etcd.is_some(),
        }
    }

    /// How far locks must exclude by what `pool`, `worker_processes` and `hosts` state. A backend that
    /// reaches less far is refused when a manager is built.
    pub fn need(&self) -> Need {
        self.deployment().need()
    }

    pub(crate) fn deployment(&self) -> Deployment {
        Deployment {
            pool: self.pool,
            worker_processes: self.worker_processes,
            hosts: self.hosts,
        }
    }

    /// Where a setting was made, for an error: ``in locks.toml, `backend` ``.
    pub(crate) fn place(&self, setting: &str) -> String {
        self.origin.place(setting)
    }

    /// What can be checked without knowing the backends.
    pub(crate) fn check(&self) -> Result<()> {
        routes::check(&self.routes, &self.place("routes"))?;
        LockKey::new("x")?
            .in_namespace(&self.namespace)
            .map_err(|error| explain::at(&self.place("namespace"), error.message()))?;
        self.deadlock
            .check()
            .map_err(|problem| explain::at(&self.place("deadlock"), problem))
    }
}

impl AcquireDefaults {
    /// The options for a backend. A lease's life is left out where there is no lease, and a lock
    /// delay where it cannot be kept: a default must not make every acquire fail.
    pub(crate) fn options_for(&self, capabilities: &Capabilities) -> AcquireOptions {
        let mut options = AcquireOptions::new().priority(self.priority);
        if let Some(limit) = self.wait_limit {
            options = options.wait_limit(limit);
        }
        if let Some(limit) = self.max_hold {
            options = options.max_hold(limit);
        }
        match self.ttl {
            Some(ttl) if capabilities.lease != LeaseKind::KernelHeld => options = options.ttl(ttl),
            _ => {}
        }
        match self.lock_delay {
            Some(delay) if capabilities.lock_delay => options = options.lock_delay(delay),
            _ => {}
        }
        options
    }
}
