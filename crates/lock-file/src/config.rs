//! Where the files are, and how waiting is backed up.

use std::path::PathBuf;
use std::time::Duration;

use lock_core::host::{self, NetworkFilesystem};

/// Where the lock files are, and how waiting is backed up. Every setting has a default.
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
pub struct FileConfig {
    /// The directory of the lock files. Processes exclude each other when they use the same one.
    /// Default: [`per_user_directory`](Self::per_user_directory).
    ///
    /// It is created with mode 0700 when it does not exist; its parent has to. One that belongs to
    /// another user, that others may enter, or that is a symbolic link is refused.
    pub directory: Option<PathBuf>,
    /// What to do about a directory on a network file system. Default: refuse it.
    pub network_filesystem: NetworkFilesystem,
    /// How often a waiter looks by itself, in case a wake-up got lost with the process that owed
    /// it. Default: 20 ms.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub backup_poll: Duration,
}

impl FileConfig {
    /// The defaults, in a directory of the caller's choice.
    #[must_use]
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
            ..Self::default()
        }
    }

    /// The directory that is used when none is set: `$XDG_RUNTIME_DIR/lock` when that variable is
    /// an absolute path, else `lock-<user id>` in the system's directory for temporary files.
    ///
    /// Processes of one user find each other there without any configuration. It is not shared
    /// between users, nor between containers that have their own file systems.
    #[must_use]
    pub fn per_user_directory() -> PathBuf {
        host::per_user_directory("lock")
    }
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            directory: None,
            network_filesystem: NetworkFilesystem::Refuse,
            backup_poll: Duration::from_millis(20),
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn durations_are_text_and_unknown_fields_are_errors() {
        let config: FileConfig =
            serde_json::from_str(r#"{"directory":"/d","backup_poll":"30ms"}"#).unwrap();
        assert_eq!(config.backup_poll, Duration::from_millis(30));
        assert_eq!(config.network_filesystem, NetworkFilesystem::Refuse);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<FileConfig>(&text).unwrap(), config);
        let unknown = serde_json::from_str::<FileConfig>(r#"{"dir":"/d"}"#).unwrap_err();
        assert!(unknown.to_string().contains("directory"), "{unknown}");
        assert!(serde_json::from_str::<FileConfig>(r#"{"backup_poll":20}"#).is_err());
    }
}
