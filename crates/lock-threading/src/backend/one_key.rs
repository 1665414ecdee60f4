//! The backend as the users of one key see it.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, FencingNumber, Grant, InspectPage, InspectQuery, LockBackend, LockKey,
    OwnerToken, PlainRequest, Released, Renewal, Renewed, Request, Result, Step,
};

use super::tables::Place;
use super::{ThreadingBackend, released};

/// A [`ThreadingBackend`] for users of one key, which knows where the key is found, and who holds
/// it by way of this value. It excludes all other users of the backend. Made by
/// [`ThreadingBackend::of_key`].
#[derive(Debug)]
#[repr(C)]
pub struct OneKey {
    // In the order in which an acquire looks at it.
    place: Place,
    backend: ThreadingBackend,
    key: LockKey,
}

impl OneKey {
    pub(super) fn new(backend: ThreadingBackend, key: LockKey) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let view = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            place: backend.tables.place(&key, view),
            backend,
            key,
        }
    }

    /// How many hold the key by way of this value, in this process. A lock that was detached is not
    /// among them until it is attached here.
    ///
    /// Whoever takes or gives back the key later than this has seen it sees all that was written
    /// before, so a flag that is raised first and read after each acquire lets nobody slip through.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.backend.tables.holders(&self.place)
    }

    fn check(&self, key: &LockKey) {
        debug_assert_eq!(*key, self.key, "each key has a view of its own");
    }
}

#[async_trait]
impl LockBackend for OneKey {
    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        self.check(key);
        self.backend.tables.acquire(&self.place, key, request)
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        self.check(key);
        self.backend.tables.acquire_plain(&self.place, request)
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.check(key);
        let was_ours = self.backend.tables.leave(&self.place, grant.attempt);
        Step::Ready(Ok(released(was_ours)))
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.check(key);
        self.backend.tables.leave(&self.place, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        self.check(key);
        let altered = self.backend.tables.alter(&self.place, key, grant, change);
        Step::Ready(altered)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.backend.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        self.backend.acquire_many(wanted)
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.backend.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.backend.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.backend.close().await
    }
}
