//! Owners that acquire through the deadlock wrapper.

use std::sync::Arc;
use std::task::Poll;

use lock_core::wrap::{Deadlock, WaitGraph};
use lock_core::{Acquire, AcquireOptions, Error, ErrorKind, Lock, LockGuard, Mode, OwnerId};

use super::{Memory, key, poll_once};

pub(crate) const X: Mode = Mode::Exclusive;
pub(crate) const S: Mode = Mode::Shared;

/// A backend, its wrapper, and owners that act on it from one thread.
pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    pub(crate) backend: Arc<Deadlock>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::around(Memory::new(), WaitGraph::new())
    }

    pub(crate) fn around(memory: Arc<Memory>, graph: WaitGraph) -> Self {
        let backend = Arc::new(Deadlock::sharing(Arc::clone(&memory) as _, graph));
        Self { memory, backend }
    }

    pub(crate) fn lock(&self, name: &str) -> Lock {
        Lock::new(Arc::new(self.backend.of_key(&key(name))), key(name))
    }

    #[track_caller]
    pub(crate) fn ask(&self, owner: OwnerId, name: &str, mode: Mode) -> Acquire {
        let options = AcquireOptions::new().owner(owner).mode(mode);
        self.lock(name).acquire_with(&options)
    }

    #[track_caller]
    pub(crate) fn hold(&self, owner: OwnerId, name: &str, mode: Mode) -> LockGuard {
        match poll_once(&mut self.ask(owner, name, mode)) {
            Poll::Ready(Ok(guard)) => guard,
            other => panic!("not granted: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn wait(&self, owner: OwnerId, name: &str, mode: Mode) -> Acquire {
        let mut acquire = self.ask(owner, name, mode);
        let outcome = poll_once(&mut acquire);
        assert!(outcome.is_pending(), "did not wait: {outcome:?}");
        acquire
    }

    #[track_caller]
    pub(crate) fn refused(&self, owner: OwnerId, name: &str, mode: Mode) -> Error {
        match poll_once(&mut self.ask(owner, name, mode)) {
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
                error
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn assert_clean(&self) {
        let graph = self.backend.graph();
        assert_eq!((graph.waiting(), graph.held()), (0, 0));
        assert!(self.memory.is_idle());
    }
}

pub(crate) fn owners<const N: usize>() -> [OwnerId; N] {
    std::array::from_fn(|_| OwnerId::new())
}

pub(crate) fn permits(count: u32, of: u32) -> Mode {
    Mode::permits(count, of).unwrap()
}
