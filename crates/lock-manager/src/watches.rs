//! What the settings about deadlocks put around the backends.

use std::sync::Arc;

use lock_core::wrap::{Deadlock, LockOrder, OrderBook, Reentrant, WaitGraph};
use lock_core::{LockBackend, LockKey};
#[cfg(feature = "threading")]
use lock_threading::OneKey;

use crate::config::DeadlockConfig;
#[cfg(feature = "threading")]
use crate::of_key::OfKey;

/// What all backends of a manager have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    graph: Option<WaitGraph>,
    book: Option<OrderBook>,
    reentrant: bool,
}

/// What stands around one backend: `Reentrant ▸ LockOrder ▸ Deadlock ▸ backend`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    detection: Option<Arc<Deadlock>>,
    book: Option<OrderBook>,
    reentrant: Option<Reentrant>,
}

impl Watches {
    pub(crate) fn new(config: &DeadlockConfig) -> Self {
        Self {
            graph: config.detect.then(|| {
                let limit = config.report_held_longer_than;
                limit.map_or_else(WaitGraph::new, WaitGraph::reporting_holds_longer_than)
            }),
            book: config.report_order.then(OrderBook::new),
            reentrant: config.reentrant,
        }
    }

    pub(crate) fn over(&self, backend: &Arc<dyn LockBackend>) -> Watch {
        let detection = |graph: &WaitGraph| {
            let detection = Deadlock::sharing(Arc::clone(backend), graph.clone());
            Arc::new(detection)
        };
        Watch {
            detection: self.graph.as_ref().map(detection),
            book: self.book.clone(),
            reentrant: self.reentrant.then(|| Reentrant::new(Arc::clone(backend))),
        }
    }
}

impl Watch {
    /// For users of any key.
    pub(crate) fn of_all(&self, backend: Arc<dyn LockBackend>) -> Arc<dyn LockBackend> {
        match &self.detection {
            Some(detection) => self.outside(Arc::clone(detection) as _),
            None => self.outside(backend),
        }
    }

    /// For users of one key, given what is there for users of any.
    pub(crate) fn of_key(
        &self,
        of_all: &Arc<dyn LockBackend>,
        key: &LockKey,
    ) -> Arc<dyn LockBackend> {
        match &self.detection {
            Some(detection) => self.outside(Arc::new(detection.of_key(key))),
            None => Arc::clone(of_all),
        }
    }

    /// The same around a backend that is for users of this key alone.
    #[cfg(feature = "threading")]
    pub(crate) fn of_key_in_process(&self, one_key: OneKey, key: &LockKey) -> OfKey {
        if self.book.is_none() {
            return match &self.detection {
                None => OfKey::InProcess(one_key),
                Some(detection) => OfKey::Watched(detection.of_key_around(key, one_key)),
            };
        }
        let counts = Arc::new(one_key);
        let one_key = Arc::clone(&counts);
        let backend: Arc<dyn LockBackend> = match &self.detection {
            None => one_key,
            Some(detection) => Arc::new(detection.of_key_around::<_, OneKey>(key, one_key)),
        };
        OfKey::Any {
            backend: self.outside(backend),
            counts: Some(counts),
        }
    }

    /// Whether several guards may share what the backend knows as one hold.
    #[cfg(feature = "threading")]
    pub(crate) fn shares_holds(&self) -> bool {
        self.reentrant.is_some()
    }

    fn outside(&self, mut backend: Arc<dyn LockBackend>) -> Arc<dyn LockBackend> {
        if let Some(book) = &self.book {
            backend = Arc::new(LockOrder::new(backend, book.clone()));
        }
        if let Some(reentrant) = &self.reentrant {
            backend = Arc::new(reentrant.around(backend));
        }
        backend
    }
}
