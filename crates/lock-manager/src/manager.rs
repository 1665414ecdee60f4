//! The facade: locks by name.

mod builder;
mod context;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_core::{
    AcquireOptions, Capabilities, Error, ErrorKind, GuardSet, KeyReport, LeaseKind, Lock,
    LockBackend, LockKey, OwnerToken, Result,
};

pub use builder::LockManagerBuilder;
pub use context::LockContext;

use crate::backends::{Backends, Built};
use crate::blocking;
use crate::config::Config;
use crate::registry::{Refused, Registry};
use crate::tracked::{Home, Tracked};

/// Locks by name, as the configuration of the deployment decides.
///
/// Cheap to clone; clones are the same manager. Names in use and names registered on purpose have an
/// entry here; all others cost nothing, however many were touched.
///
/// ```
/// use lock_manager::{Config, LockManager};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> lock_manager::Result<()> {
/// let manager = LockManager::new(Config::default())?;
/// let guard = manager.lock("orders/42")?.acquire().await?;
/// guard.release().await?;
/// # Ok(()) }
/// ```
///
/// A child made by `fork` can go on using it: it starts with an empty registry and holds nothing.
#[derive(Clone, Debug)]
pub struct LockManager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pub(crate) backends: Backends,
    pub(crate) home: Home,
}

impl LockManager {
    /// A manager for a deployment.
    ///
    /// # Errors
    /// `InvalidConfig` when the backend does not exist or excludes less than the pool needs, or a
    /// route leads nowhere; `Unsupported` when the backend is not compiled in. Each says what to
    /// write instead.
    pub fn new(config: Config) -> Result<Self> {
        Self::builder().config(config).build()
    }

    /// A manager for the deployment that a TOML, YAML or JSON file describes.
    ///
    /// # Errors
    /// As [`Config::from_file`] and [`new`](Self::new).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Config::from_file(path)?)
    }

    /// Plugs in backends of one's own.
    pub fn builder() -> LockManagerBuilder {
        LockManagerBuilder::default()
    }

    pub(crate) fn from_backends(backends: Backends) -> Self {
        let home = Home::default();
        Self {
            shared: Arc::new(Shared { backends, home }),
        }
    }

    /// The lock of a name: the one that is in use or registered, or else a new one on the backend
    /// that the routes choose. Its options are those of the configuration.
    ///
    /// Nothing is kept for it once its handles and guards are gone.
    ///
    /// # Errors
    /// `InvalidKey` when the name breaks the rules of [`LockKey`]; `Closed` after a shutdown.
    pub fn lock(&self, name: impl AsRef<str>) -> Result<Lock> {
        self.lock_key(&LockKey::new(name)?)
    }

    /// The lock of a key, for instance of a file ([`LockKey::path`]). A key without a namespace gets
    /// that of the configuration.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_key(&self, key: &LockKey) -> Result<Lock> {
        self.check_open()?;
        let key = self.in_namespace(key)?;
        Ok(self.handle(self.tracked(&key)?))
    }

    /// The lock of a name on a backend of choice, registered until it is removed.
    ///
    /// # Errors
    /// As [`lock`](Self::lock); `InUse` when the name is in use or registered with another backend;
    /// `InvalidConfig` when the backend does not exist or excludes less than the pool needs;
    /// `Unsupported` when it is not compiled in.
    pub fn create_lock(&self, name: impl AsRef<str>, backend: impl AsRef<str>) -> Result<Lock> {
        self.check_open()?;
        let key = self.in_namespace(&LockKey::new(name)?)?;
        let place = format!("lock `{}`", key.name().escape_debug());
        let backend = self.shared.backends.checked(&place, backend.as_ref())?;
        Ok(self.handle(self.obtain(&key, &backend, true)?))
    }

    /// [`create_lock`](Self::create_lock) under the name that says what it does with a lock that is
    /// there already.
    ///
    /// # Errors
    /// As [`create_lock`](Self::create_lock).
    pub fn get_or_create_lock(
        &self,
        name: impl AsRef<str>,
        backend: impl AsRef<str>,
    ) -> Result<Lock> {
        self.create_lock(name, backend)
    }

    /// The names that are registered, or have a handle or guard in this process, each with its
    /// backend.
    #[must_use]
    pub fn list_locks(&self) -> BTreeMap<String, String> {
        self.registry().list()
    }

    /// Drops the registration of a name, and says whether there was one. The lock in the backend is
    /// not touched, and handles that are out stay the same lock.
    ///
    /// # Errors
    /// `InUse` while it is held or waited for in this process; `InvalidKey`.
    pub fn remove_lock(&self, name: impl AsRef<str>) -> Result<bool> {
        let key = self.in_namespace(&LockKey::new(name)?)?;
        self.registry()
            .remove(&key)
            .map_err(|refused| refuse(&key, &refused))
    }

    /// Whether anyone holds the lock now, in any process. Advisory: it may be out of date when it
    /// returns.
    ///
    /// # Errors
    /// `InvalidKey`; `Unavailable` and `PermissionDenied` as the backend.
    ///
    /// # Cancel safety
    /// Changes nothing, so it can be dropped at any point.
    pub async fn is_locked(&self, name: impl AsRef<str> + Send) -> Result<bool> {
        let lock = self.look(name.as_ref())?;
        lock.is_locked().await
    }

    /// Waits for the lock of a name, and holds it until the guard is dropped. `None` waits without a
    /// limit, zero is one attempt.
    ///
    /// # Errors
    /// `Timeout` when the limit passes; otherwise as [`lock`](Self::lock) and [`Lock::acquire`].
    ///
    /// # Cancel safety
    /// Dropping the future at any point leaves no lock and no queue entry.
    #[track_caller]
    pub fn lock_context(
        &self,
        name: impl AsRef<str>,
        limit: impl Into<Option<Duration>>,
    ) -> LockContext {
        let limit = limit.into();
        LockContext::new(self.lock(name).map(|lock| {
            let options = lock.options().clone();
            lock.acquire_with(&match limit {
                Some(limit) => options.wait_limit(limit),
                None => options.wait_forever(),
            })
        }))
    }

    /// Takes all locks of the names, or none, with the options of the configuration.
    ///
    /// Duplicates count once, and the wait limit covers the whole set. Sets that overlap cannot
    /// deadlock each other, in whatever order they are named.
    ///
    /// # Errors
    /// As [`lock`](Self::lock) and [`lock_core::acquire_all`].
    ///
    /// # Cancel safety
    /// Dropping the future at any point leaves no lock and no queue entry.
    pub async fn acquire_all<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N, IntoIter: Send> + Send,
    ) -> Result<GuardSet> {
        let locks = self.locks(names)?;
        let options = self.common_options(&locks);
        lock_core::acquire_all(&locks, &options).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`acquire_all`](Self::acquire_all).
    ///
    /// # Cancel safety
    /// As [`acquire_all`](Self::acquire_all).
    pub async fn acquire_all_with<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N, IntoIter: Send> + Send,
        options: &AcquireOptions,
    ) -> Result<GuardSet> {
        let locks = self.locks(names)?;
        lock_core::acquire_all(&locks, options).await
    }

    /// Who holds a lock, who waits for it, and since when: in every process that the backend reaches.
    ///
    /// For a whole namespace, ask each of [`backends`](Self::backends) by
    /// [`backend`](Self::backend).
    ///
    /// # Errors
    /// `InvalidKey`; `Unavailable` and `PermissionDenied` as the backend.
    ///
    /// # Cancel safety
    /// Changes nothing, so it can be dropped at any point.
    pub async fn inspect(&self, name: impl AsRef<str> + Send) -> Result<KeyReport> {
        let lock = self.look(name.as_ref())?;
        let query = lock_core::InspectQuery::key(lock.key().clone());
        let page = lock.backend().inspect(query).await?;
        let report = page.keys.into_iter().next();
        Ok(report.unwrap_or_else(|| KeyReport::idle(lock.key().clone())))
    }

    /// Takes a lock away from its holders, or from one attempt, wherever they are: for an operator
    /// who knows that they are gone or stuck. Returns how many were broken.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot do it; `InvalidKey`; otherwise as the backend.
    ///
    /// # Cancel safety
    /// Whether the lock was broken is open when it is dropped.
    pub async fn break_lock(
        &self,
        name: impl AsRef<str> + Send,
        attempt: Option<OwnerToken>,
    ) -> Result<usize> {
        let lock = self.look(name.as_ref())?;
        lock.backend().break_lock(lock.key(), attempt).await
    }

    /// The same conveniences for threads without a runtime.
    #[must_use]
    pub fn blocking(&self) -> blocking::LockManager<'_> {
        blocking::LockManager::new(self)
    }

    /// The settings it was built from.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.shared.backends.config()
    }

    /// The backend of every name that no route sends elsewhere.
    #[must_use]
    pub fn default_backend(&self) -> &str {
        self.shared.backends.default()
    }

    /// The names of the backends that can be used: compiled in or plugged in.
    #[must_use]
    pub fn backends(&self) -> Vec<&str> {
        self.shared.backends.names()
    }

    /// A backend by name, to look at what it knows.
    ///
    /// # Errors
    /// `InvalidConfig` when there is none of that name, `Unsupported` when it is not compiled in.
    pub fn backend(&self, name: impl AsRef<str>) -> Result<Arc<dyn LockBackend>> {
        let built = self.shared.backends.get(name.as_ref())?;
        Ok(Arc::clone(&built.backend))
    }

    pub(crate) fn home(&self) -> &Home {
        &self.shared.home
    }

    pub(crate) fn built(&self) -> impl Iterator<Item = (&Arc<str>, &Built)> {
        self.shared.backends.built()
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.shared.home.registry.get_or_init(Registry::default)
    }

    fn check_open(&self) -> Result<()> {
        if self.shared.home.gate.is_closed() {
            return Err(Error::new(
                ErrorKind::Closed,
                "the manager was shut down; build a new one to go on locking",
            ));
        }
        Ok(())
    }

    fn in_namespace(&self, key: &LockKey) -> Result<LockKey> {
        match &*self.config().namespace {
            "" => Ok(key.clone()),
            namespace if key.namespace().is_empty() => key.in_namespace(namespace),
            _ => Ok(key.clone()),
        }
    }

    /// A handle to look at a name, also after a shutdown.
    fn look(&self, name: &str) -> Result<Lock> {
        let key = self.in_namespace(&LockKey::new(name)?)?;
        Ok(self.handle(self.tracked(&key)?))
    }

    fn locks<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Result<Vec<Lock>> {
        names.into_iter().map(|name| self.lock(name)).collect()
    }

    /// The name as it is in use, or as the routes say.
    fn tracked(&self, key: &LockKey) -> Result<Arc<Tracked>> {
        loop {
            if let Some(tracked) = self.registry().find(key) {
                return Ok(tracked);
            }
            let backend = self.shared.backends.route(key.name());
            match self.obtain(key, backend, false) {
                // Created on another backend in the meantime: then that is the lock.
                Err(error) if error.kind() == ErrorKind::InUse => {}
                outcome => return outcome,
            }
        }
    }

    fn obtain(&self, key: &LockKey, backend: &Arc<str>, register: bool) -> Result<Arc<Tracked>> {
        let built = self.shared.backends.get(backend)?;
        let make = || {
            let of_key = built.of_key(key);
            Tracked::new(key.clone(), of_key, Arc::clone(backend), self.home())
        };
        self.registry()
            .obtain(key, backend, register, make)
            .map_err(|refused| refuse(key, &refused))
    }

    fn handle(&self, tracked: Arc<Tracked>) -> Lock {
        let config = self.config();
        let options = config.acquire.options_for(&tracked.capabilities());
        let key = tracked.key().clone();
        let lock = Lock::with_epoch(tracked, key, config.fencing_epoch);
        // Options of one's own cost an allocation.
        if options == *lock.options() {
            return lock;
        }
        lock.with_options(options)
    }

    /// The options that every backend of the set can honour.
    fn common_options(&self, locks: &[Lock]) -> AcquireOptions {
        let all: Vec<Capabilities> = locks
            .iter()
            .map(|lock| lock.backend().capabilities())
            .collect();
        let kernel_held = all.iter().find(|one| one.lease == LeaseKind::KernelHeld);
        let Some(mut common) = kernel_held.or_else(|| all.first()).copied() else {
            return AcquireOptions::new();
        };
        common.lock_delay = all.iter().all(|one| one.lock_delay);
        self.config().acquire.options_for(&common)
    }
}

fn refuse(key: &LockKey, refused: &Refused) -> Error {
    let message = match refused {
        Refused::OtherBackend(backend) => format!(
            "the name already has backend `{backend}`; use that one, or remove the lock and drop its \
             handles first"
        ),
        Refused::InUse(held, waiting) => format!(
            "held {held} times and waited for {waiting} times in this process; release it first"
        ),
    };
    Error::new(ErrorKind::InUse, message).with_key(key)
}
