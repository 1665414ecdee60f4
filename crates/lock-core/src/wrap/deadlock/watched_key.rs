//! The wrapper as the users of one key see it.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;

use super::Place;
use super::watch::Watch;
use crate::fork::ForkLocal;
use crate::{
    Capabilities, Change, Error, FencingNumber, Grant, InspectPage, InspectQuery, LockBackend,
    LockKey, OwnerToken, PlainRequest, Released, Renewal, Renewed, Request, Result, Step,
};

/// [`Deadlock`](super::Deadlock) for users of one key, around a backend `B` that lies in it or
/// behind a pointer `P`. Has the record of its key at hand.
///
/// Made by [`Deadlock::of_key`](super::Deadlock::of_key) and
/// [`Deadlock::of_key_around`](super::Deadlock::of_key_around).
#[derive(Debug)]
#[repr(C)]
pub struct WatchedKey<P, B: ?Sized = P> {
    // In the order in which an acquire looks at it.
    place: ForkLocal<Arc<Place>>,
    inner: P,
    watch: Watch,
    key: LockKey,
    backend: PhantomData<fn() -> Box<B>>,
}

impl<P: Borrow<B>, B: LockBackend + ?Sized> WatchedKey<P, B> {
    pub(super) fn new(watch: Watch, key: LockKey, inner: P) -> Self {
        Self {
            place: ForkLocal::with_value(watch.place(&key)),
            inner,
            watch,
            key,
            backend: PhantomData,
        }
    }

    /// What it stands around.
    pub fn inner(&self) -> &B {
        self.inner.borrow()
    }

    #[inline]
    fn own_place(&self) -> &Arc<Place> {
        self.place.get_or_init(|| self.watch.place(&self.key))
    }

    fn check(&self, key: &LockKey) {
        debug_assert_eq!(*key, self.key, "each key has a wrapper of its own");
    }
}

#[async_trait]
impl<P, B> LockBackend for WatchedKey<P, B>
where
    P: Borrow<B> + Debug + Send + Sync + 'static,
    B: LockBackend + ?Sized + 'static,
{
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            acquire_many: false,
            ..self.inner().capabilities()
        }
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        self.check(key);
        self.watch
            .acquire(self.inner(), self.own_place(), key, request)
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        let place = self.own_place();
        let number = self.inner().acquire_plain(key, request)?;
        place.hold_plainly(request);
        Some(number)
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        // Invariant: a holder is forgotten before the backend lets the next one in, so that the
        // graph never shows a holder that the backend does not have.
        self.watch.graph.leave(self.own_place(), grant.attempt);
        self.inner().release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.watch.graph.leave(self.own_place(), attempt);
        self.inner().abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        self.watch
            .alter(self.inner(), self.own_place(), key, grant, change)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner().renew(batch).await
    }

    fn acquire_many(&self, _: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let name = self.inner().capabilities().name;
        Step::Ready(Err(Error::unsupported(name, "other keys here")))
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner().inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.inner().break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner().close().await
    }
}

impl<P, B: ?Sized> Drop for WatchedKey<P, B> {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            self.watch.graph.forget_if_idle(place);
        }
    }
}
