//! From the command line to a lock manager.

use std::time::Duration;

use lock_core::{InspectPage, InspectQuery, Lock, block_on};
use lock_manager::{BackendKind, Config, LockManager};

use crate::args::Place;
use crate::failure::Failure;

/// The manager that the command line asks for.
#[derive(Debug)]
pub(crate) struct Opened {
    manager: LockManager,
}

/// Reads the configuration and opens its backends. Without one, the locks are files in a directory
/// of the user.
pub(crate) fn open(place: &Place) -> Result<Opened, Failure> {
    let mut config = read(place)?;
    if let Some(namespace) = &place.namespace {
        config.namespace.clone_from(namespace);
    }
    let manager = LockManager::new(config)?;
    Ok(Opened { manager })
}

fn read(place: &Place) -> Result<Config, Failure> {
    let Some(path) = &place.config else {
        let mut config = Config::default();
        config.backend = Some(BackendKind::File.name().to_owned());
        return Ok(config);
    };
    let loader = Config::loader().file(path);
    let loader = match &place.profile {
        Some(profile) => loader.profile(profile),
        None => loader,
    };
    Ok(loader.load()?)
}

impl Opened {
    /// What it was opened from.
    pub(crate) fn manager(&self) -> &LockManager {
        &self.manager
    }

    /// The lock of a name, on the backend that serves it.
    pub(crate) fn lock(&self, name: &str) -> Result<Lock, Failure> {
        Ok(self.manager.lock(name)?)
    }

    /// The backends that the configuration uses: the one of most keys first, then those of routes.
    pub(crate) fn backends(&self) -> Vec<&str> {
        let mut names = vec![self.manager.default_backend()];
        for route in &self.manager.config().routes {
            if !names.contains(&&*route.backend) {
                names.push(&route.backend);
            }
        }
        names
    }

    /// One page of what a backend knows about the namespace.
    ///
    /// # Blocking
    /// As long as the backend takes to answer.
    pub(crate) fn page(&self, backend: &str, query: InspectQuery) -> Result<InspectPage, Failure> {
        let backend = self.manager.backend(backend)?;
        Ok(block_on(backend.inspect(query))?)
    }

    /// Closes the backends: what is still on its way to a server would die with this process.
    ///
    /// # Blocking
    /// For two seconds at most.
    pub(crate) fn close(&self) {
        let _ = self.manager.blocking().shutdown(Duration::from_secs(2));
    }
}
