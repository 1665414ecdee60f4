//! Building a manager with backends of one's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use lock_core::{Error, ErrorKind, LockBackend, Result};

use super::LockManager;
use crate::backends::Backends;
use crate::config::Config;

/// Builds a [`LockManager`], with backends of one's own where there are any.
///
/// ```
/// use std::sync::Arc;
/// use lock_manager::{Config, LockManager};
///
/// # fn example(my_backend: Arc<dyn lock_manager::LockBackend>) -> lock_manager::Result<()> {
/// let mut config = Config::default();
/// config.backend = Some("mine".into());
/// let manager = LockManager::builder()
///     .config(config)
///     .backend("mine", my_backend)
///     .build()?;
/// # let _ = manager; Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is built before `build`"]
pub struct LockManagerBuilder {
    config: Config,
    plugged: BTreeMap<String, Arc<dyn LockBackend>>,
}

impl LockManagerBuilder {
    /// The settings. Default: in-process locks.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Makes a backend known by a name, for `backend`, `routes` and
    /// [`create_lock`](LockManager::create_lock). It counts as configured, and its declared scope is
    /// held against the pool like that of any other. Under the name of a built-in backend, it
    /// replaces that one. [`shutdown`](LockManager::shutdown) closes it.
    pub fn backend(mut self, name: impl Into<String>, backend: Arc<dyn LockBackend>) -> Self {
        self.plugged.insert(name.into(), backend);
        self
    }

    /// Builds the manager.
    ///
    /// # Errors
    /// As [`LockManager::new`].
    pub fn build(self) -> Result<LockManager> {
        if self.plugged.contains_key("") {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a backend is plugged in under an empty name; give it one",
            ));
        }
        let backends = Backends::new(self.config, self.plugged)?;
        Ok(LockManager::from_backends(backends))
    }
}
