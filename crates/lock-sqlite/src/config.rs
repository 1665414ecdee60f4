//! Where the database is, and how it is used.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use lock_core::host::{self, NetworkFilesystem};

/// Where the database is, and how it is used. Every setting has a default.
///
/// With the crate feature `serde` it can be read from a configuration file; durations are strings
/// such as `"20ms"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The database file. Processes exclude each other when they use the same one. Default:
    /// [`per_user_path`](Self::per_user_path).
    ///
    /// It is created when it does not exist, and so is its directory, with mode 0700, if the parent
    /// of that is there. A directory `<path>-sessions` is made beside it. What belongs to another
    /// user, what others may enter, and a symbolic link are refused.
    pub path: Option<PathBuf>,
    /// Whether the file may be an application's own database. Default: no.
    pub application_database: ApplicationDatabase,
    /// What to do about a file on a network file system. Default: refuse it.
    pub network_filesystem: NetworkFilesystem,
    /// Makes grants leases of this life, which are renewed while the process runs on: a process that
    /// is stopped for longer than that loses its locks. Default: none; a grant then lasts as long as
    /// the process, and ends with it at once.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text::positive"))]
    pub ttl: Option<Duration>,
    /// How often a waiter looks by itself, in case a wake-up got lost with the process that owed
    /// it. Default: 20 ms.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub backup_poll: Duration,
    /// How long to wait for other programs that write to the file, before `Unavailable`. Default:
    /// 10 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub busy_limit: Duration,
    /// How many commands of this process one transaction takes along at most, when several are
    /// there at once. Default: 64. With 1, each command is a transaction of its own.
    pub batch: NonZeroU32,
}

/// Whether the database file may be an application's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum ApplicationDatabase {
    /// A file with other tables is refused, and left as it is.
    #[default]
    Refuse,
    /// Tables `lock_*` are made in the application's database, which has to be in WAL mode.
    Allow,
}

impl SqliteConfig {
    /// The defaults, with a file of the caller's choice.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// The file that is used when none is set: `lock-sqlite/locks.db` in `$XDG_RUNTIME_DIR` when that
    /// variable is an absolute path, else `lock-sqlite-<user id>/locks.db` in the system's directory
    /// for temporary files.
    #[must_use]
    pub fn per_user_path() -> PathBuf {
        host::per_user_directory("lock-sqlite").join("locks.db")
    }
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: None,
            application_database: ApplicationDatabase::Refuse,
            network_filesystem: NetworkFilesystem::Refuse,
            ttl: None,
            backup_poll: Duration::from_millis(20),
            busy_limit: Duration::from_secs(10),
            batch: NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN),
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn durations_are_text_and_unknown_fields_are_errors() {
        let config: SqliteConfig =
            serde_json::from_str(r#"{"path":"/d/l.db","ttl":"30s","batch":8}"#).unwrap();
        assert_eq!(config.ttl, Some(Duration::from_secs(30)));
        assert_eq!(config.batch.get(), 8);
        assert_eq!(config.application_database, ApplicationDatabase::Refuse);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SqliteConfig>(&text).unwrap(), config);
        for wrong in [r#"{"file":"/d"}"#, r#"{"ttl":"0s"}"#, r#"{"batch":0}"#] {
            assert!(
                serde_json::from_str::<SqliteConfig>(wrong).is_err(),
                "{wrong}"
            );
        }
        let default = serde_json::to_string(&SqliteConfig::default()).unwrap();
        assert!(default.contains(r#""ttl":null"#), "{default}");
    }
}
