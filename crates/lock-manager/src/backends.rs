//! The backends of a manager: chosen at its start, built when first needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use lock_core::{Capabilities, LockBackend, LockKey, Result};
use once_cell::race::OnceBox;

use crate::config::Config;
use crate::deployment::{Candidate, Deployment};
use crate::kind::{self, BackendKind};
use crate::of_key::OfKey;
use crate::routes::Route;
use crate::watches::{Watch, Watches};

/// Every backend that a name can get, and the rules that say which.
#[derive(Debug)]
pub(crate) struct Backends {
    config: Config,
    deployment: Deployment,
    slots: BTreeMap<Arc<str>, Slot>,
    default: Arc<str>,
    routes: Vec<(Route, Arc<str>)>,
    watches: Watches,
}

/// A backend, built or not.
#[derive(Debug)]
struct Slot {
    /// `None` for one that was plugged in.
    kind: Option<BackendKind>,
    built: OnceBox<Built>,
}

/// A backend in use.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) backend: Arc<dyn LockBackend>,
    pub(crate) capabilities: Capabilities,
    /// Whether a shutdown of the manager closes it.
    pub(crate) owned: bool,
    /// Around it, as far as the settings say.
    watch: Watch,
    /// Where it has something for users of one key alone, who are counted there.
    #[cfg(feature = "threading")]
    in_process: Option<lock_threading::ThreadingBackend>,
}

impl Built {
    fn new(backend: Arc<dyn LockBackend>, owned: bool) -> Self {
        let capabilities = backend.capabilities();
        Self {
            backend,
            capabilities,
            owned,
            watch: Watch::default(),
            #[cfg(feature = "threading")]
            in_process: None,
        }
    }

    /// The same as the settings about deadlocks say.
    fn watched(mut self, watches: &Watches) -> Self {
        self.watch = watches.over(&self.backend);
        self.backend = self.watch.of_all(self.backend);
        self
    }

    /// The backend for the users of one key.
    pub(crate) fn of_key(&self, key: &LockKey) -> OfKey {
        #[cfg(feature = "threading")]
        if let Some(in_process) = &self.in_process
            && !self.watch.shares_holds()
        {
            return self.watch.of_key_in_process(in_process.of_key(key), key);
        }
        OfKey::Any {
            backend: self.watch.of_key(&self.backend, key),
            counts: None,
        }
    }
}

impl Backends {
    /// Chooses the default backend, resolves the routes, and builds what they name.
    pub(crate) fn new(
        config: Config,
        plugged: BTreeMap<String, Arc<dyn LockBackend>>,
    ) -> Result<Self> {
        config.check()?;
        let watches = Watches::new(&config.deadlock);
        let slots = slots(plugged, &watches);
        let deployment = config.deployment();
        let mut backends = Self {
            deployment,
            slots,
            default: "".into(),
            routes: Vec::new(),
            watches,
            config,
        };
        backends.default = backends.choose()?;
        let place = backends.config.place("routes");
        for (i, route) in backends.config.routes.clone().into_iter().enumerate() {
            let place = format!("{place}, rule {}", i + 1);
            let name = backends.checked(&place, &route.backend)?;
            backends.routes.push((route, name));
        }
        Ok(backends)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn default(&self) -> &Arc<str> {
        &self.default
    }

    /// The backend for a name, by the routes.
    pub(crate) fn route(&self, name: &str) -> &Arc<str> {
        self.routes
            .iter()
            .find(|(route, _)| route.matches(name))
            .map_or(&self.default, |(_, backend)| backend)
    }

    /// The names of what can be used in this build.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.kind.is_none_or(BackendKind::is_available))
            .map(|(name, _)| &**name)
            .collect()
    }

    /// A backend that exists in this build and reaches far enough. `place` is where it is named.
    pub(crate) fn checked(&self, place: &str, name: &str) -> Result<Arc<str>> {
        let Some((name, slot)) = self.slots.get_key_value(name) else {
            return Err(kind::unknown_backend(place, name, &self.plugged()));
        };
        self.deployment.check(place, slot.candidate(name))?;
        if let Some(kind) = slot.kind {
            kind.require(place)?;
        }
        slot.built(&self.config, &self.watches)?;
        Ok(Arc::clone(name))
    }

    /// A backend by a name that was checked, or one that is only looked at.
    pub(crate) fn get(&self, name: &str) -> Result<&Built> {
        match self.slots.get(name) {
            Some(slot) => slot.built(&self.config, &self.watches),
            None => {
                let place = "the backend asked for";
                Err(kind::unknown_backend(place, name, &self.plugged()))
            }
        }
    }

    /// What has been built.
    pub(crate) fn built(&self) -> impl Iterator<Item = (&Arc<str>, &Built)> {
        self.slots
            .iter()
            .filter_map(|(name, slot)| Some((name, slot.built.get()?)))
    }

    fn choose(&self) -> Result<Arc<str>> {
        if let Some(named) = &self.config.backend {
            return self.checked(&self.config.place("backend"), named);
        }
        let configured: Vec<Candidate<'_>> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.kind.is_none_or(|kind| self.config.has_section(kind)))
            .map(|(name, slot)| slot.candidate(name))
            .collect();
        let built_in = BackendKind::Threading;
        let built_in = built_in.is_available().then(|| Candidate {
            name: built_in.name(),
            scope: built_in.scope(),
        });
        let chosen = self.deployment.choose(&ordered(configured), built_in)?;
        self.checked(&self.config.place(chosen.name), chosen.name)
    }

    fn plugged(&self) -> Vec<&str> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.kind.is_none())
            .map(|(name, _)| &**name)
            .collect()
    }
}

impl Slot {
    fn candidate<'a>(&self, name: &'a str) -> Candidate<'a> {
        let scope = match (self.kind, self.built.get()) {
            (Some(kind), _) => kind.scope(),
            (None, Some(built)) => built.capabilities.scope,
            (None, None) => unreachable!("what was plugged in is built"),
        };
        Candidate { name, scope }
    }

    /// The backend, built on first need. Racing threads may build it twice; one is dropped.
    fn built(&self, config: &Config, watches: &Watches) -> Result<&Built> {
        self.built.get_or_try_init(|| {
            let kind = self.kind.map(|kind| build(kind, config));
            kind.unwrap_or_else(|| unreachable!("what was plugged in is built"))
                .map(|built| Box::new(built.watched(watches)))
        })
    }
}

/// Builds a backend from its section.
fn build(kind: BackendKind, config: &Config) -> Result<Built> {
    kind.require(&config.place("backend"))?;
    match kind {
        // One table for the process, whoever builds managers; so no manager may close it.
        #[cfg(feature = "threading")]
        BackendKind::Threading => {
            use lock_threading::ThreadingBackend;
            let backend = ThreadingBackend::process_wide();
            Ok(Built {
                in_process: Some(backend.clone()),
                ..Built::new(Arc::new(backend), false)
            })
        }
        #[cfg(all(unix, feature = "file"))]
        BackendKind::File => {
            let settings = config.file.clone().unwrap_or_default();
            let place = match &settings.directory {
                Some(_) => config.place("file.directory"),
                None => "`file.directory` is not set".to_owned(),
            };
            let opened = lock_file::FileBackend::open(settings);
            let backend = opened.map_err(|error| error.at(place))?;
            Ok(Built::new(Arc::new(backend), true))
        }
        #[cfg(feature = "etcd")]
        BackendKind::Etcd => {
            let settings = config.etcd.clone().unwrap_or_default();
            // It renews its lease itself, for waiters too.
            let opened = lock_etcd::EtcdBackend::open(settings);
            let backend = opened.map_err(|error| error.at(config.place("etcd")))?;
            Ok(Built::new(Arc::new(backend), true))
        }
        #[cfg(feature = "redis")]
        BackendKind::Redis => {
            let settings = config.redis.clone().unwrap_or_default();
            let backend = lock_redis::RedisBackend::new(settings);
            let backend = backend.map_err(|error| error.at(config.place("redis")))?;
            let renewed = lock_core::Keepalive::new(Arc::new(backend));
            Ok(Built::new(Arc::new(renewed), true))
        }
        #[cfg(all(unix, feature = "sqlite"))]
        BackendKind::Sqlite => {
            let settings = config.sqlite.clone().unwrap_or_default();
            let place = match &settings.path {
                Some(_) => config.place("sqlite.path"),
                None => "`sqlite.path` is not set".to_owned(),
            };
            let renews = settings.ttl.is_some();
            let opened = lock_sqlite::SqliteBackend::open(settings);
            let backend: Arc<dyn LockBackend> = Arc::new(opened.map_err(|error| error.at(place))?);
            let backend = match renews {
                true => Arc::new(lock_core::Keepalive::new(backend)),
                false => backend,
            };
            Ok(Built::new(backend, true))
        }
        #[allow(
            unreachable_patterns,
            reason = "reachable unless every backend is compiled in"
        )]
        kind => unreachable!("`{kind}` is available, and so was built above"),
    }
}

/// A slot for every name. What is plugged in under the name of a built-in backend replaces it.
fn slots(
    plugged: BTreeMap<String, Arc<dyn LockBackend>>,
    watches: &Watches,
) -> BTreeMap<Arc<str>, Slot> {
    let built_in = BackendKind::ALL.into_iter().map(|kind| {
        let slot = Slot {
            kind: Some(kind),
            built: OnceBox::new(),
        };
        (Arc::from(kind.name()), slot)
    });
    let plugged = plugged.into_iter().map(|(name, backend)| {
        let built = Built::new(backend, true).watched(watches);
        let slot = Slot {
            kind: None,
            built: OnceBox::with_value(Box::new(built)),
        };
        (Arc::from(name), slot)
    });
    built_in.chain(plugged).collect()
}

/// In the order of [`BackendKind::ALL`], then what was plugged in by name.
fn ordered(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    candidates.sort_by_key(|candidate| {
        BackendKind::from_name(candidate.name).map_or(usize::MAX, |kind| kind as usize)
    });
    candidates
}
