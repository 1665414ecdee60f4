//! The wrapper as the users of one key see it.

use std::sync::Arc;

use async_trait::async_trait;

use super::Place;
use super::watch::Watch;
use crate::fork::ForkLocal;
use crate::{
    Capabilities, Change, Error, FencingNumber, Grant, InspectPage, InspectQuery, LockBackend,
    LockKey, OwnerToken, PlainRequest, Released, Renewal, Renewed, Request, Result, Step,
};

/// Has the record of its key at hand.
#[derive(Debug)]
pub(super) struct OneKey {
    watch: Watch,
    key: LockKey,
    place: ForkLocal<Arc<Place>>,
}

impl OneKey {
    pub(super) fn new(watch: Watch, key: LockKey) -> Self {
        Self {
            watch,
            key,
            place: ForkLocal::new(),
        }
    }

    fn own_place(&self) -> &Arc<Place> {
        self.place.get_or_init(|| self.watch.place(&self.key))
    }
}

#[async_trait]
impl LockBackend for OneKey {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            acquire_many: false,
            ..self.watch.inner.capabilities()
        }
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        debug_assert_eq!(*key, self.key, "each key has a wrapper of its own");
        self.watch.acquire(self.own_place(), key, request)
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        let place = self.own_place();
        let number = self.watch.inner.acquire_plain(key, request)?;
        place.hold_plainly(request);
        Some(number)
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.watch.release(self.own_place(), key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.watch.abandon(self.own_place(), key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        self.watch.alter(self.own_place(), key, grant, change)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.watch.inner.renew(batch).await
    }

    fn acquire_many(&self, _: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let name = self.watch.inner.capabilities().name;
        Step::Ready(Err(Error::unsupported(name, "other keys here")))
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.watch.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.watch.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.watch.inner.close().await
    }
}

impl Drop for OneKey {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            self.watch.graph.forget_if_idle(place);
        }
    }
}
