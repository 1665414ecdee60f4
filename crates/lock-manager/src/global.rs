//! One manager for the whole process, for code that is handed none.

use std::time::Duration;

use lock_core::{Error, ErrorKind, Lock, Result};
use once_cell::race::OnceBox;

use crate::config::Config;
use crate::manager::{LockContext, LockManager};

static DEFAULT: OnceBox<LockManager> = OnceBox::new();

/// The manager of this process: the one that was set, or else one for in-process locks, made at the
/// first call. Reads no file and no environment variable.
///
/// # Panics
/// Never in practice: in-process locks without settings can always be built.
#[must_use]
#[expect(clippy::expect_used, reason = "documented under # Panics, and tested")]
pub fn default_manager() -> &'static LockManager {
    DEFAULT.get_or_init(|| {
        let manager = LockManager::new(Config::default());
        Box::new(manager.expect("in-process locks need no settings"))
    })
}

/// Makes a manager the default one. Call it once, at the start of the program.
///
/// # Errors
/// `InUse` when one was set, or the default was used, before: locks that were taken there would not
/// exclude those taken from now on.
pub fn set_default_manager(manager: LockManager) -> Result<()> {
    DEFAULT.set(Box::new(manager)).map_err(|_| {
        Error::new(
            ErrorKind::InUse,
            "there is a default manager already; set it before its first use, and only once",
        )
    })
}

/// [`default_manager`] under the name that it has in `concurrent_control`.
#[must_use]
pub fn get_default_lock_manager() -> &'static LockManager {
    default_manager()
}

/// [`LockManager::create_lock`] of the default manager.
///
/// # Errors
/// As [`LockManager::create_lock`].
pub fn create_lock(name: impl AsRef<str>, backend: impl AsRef<str>) -> Result<Lock> {
    default_manager().create_lock(name, backend)
}

/// [`LockManager::lock_context`] of the default manager.
///
/// # Errors
/// As [`LockManager::lock_context`].
///
/// # Cancel safety
/// As [`LockManager::lock_context`].
#[track_caller]
pub fn lock_context(name: impl AsRef<str>, limit: impl Into<Option<Duration>>) -> LockContext {
    default_manager().lock_context(name, limit)
}
