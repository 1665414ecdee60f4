//! The outermost wrapper: one per name in use, which knows what is held and waited for here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::{
    Capabilities, Change, Error, FencingNumber, Grant, InspectPage, InspectQuery, LockBackend,
    LockKey, OwnerToken, PlainRequest, Released, Renewal, Renewed, Request, Result, Step,
};

use crate::attempts::Attempts;
use crate::gate::Gate;
use crate::of_key::OfKey;
use crate::registry::Registry;

/// A backend as one name sees it. Every handle and guard of the name shares it, so the registry needs
/// no more than a weak reference to know whether the name is in use.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Tracked {
    // What each acquire and release looks at comes first, on neighbouring cache lines.
    gate: Arc<Gate>,
    /// If it knows itself who holds through us, only waiters are noted here.
    of_key: OfKey,
    /// Of this process: a child starts without any.
    attempts: ForkLocal<Attempts>,
    key: LockKey,
    backend_name: Arc<str>,
    registry: Weak<ForkLocal<Registry>>,
    me: Weak<Self>,
}

/// What all names of a manager have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home {
    pub(crate) gate: Arc<Gate>,
    pub(crate) registry: Arc<ForkLocal<Registry>>,
}

impl Tracked {
    pub(crate) fn new(
        key: LockKey,
        of_key: OfKey,
        backend_name: Arc<str>,
        home: &Home,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            gate: Arc::clone(&home.gate),
            of_key,
            attempts: ForkLocal::with_value(Attempts::default()),
            key,
            backend_name,
            registry: Arc::downgrade(&home.registry),
            me: me.clone(),
        })
    }

    pub(crate) fn key(&self) -> &LockKey {
        &self.key
    }

    /// The name of the backend in the configuration.
    pub(crate) fn backend_name(&self) -> &Arc<str> {
        &self.backend_name
    }

    /// How many attempts of this process hold the lock and wait for it.
    pub(crate) fn count(&self) -> (usize, usize) {
        let (held, waiting) = self.attempts.get().map_or((0, 0), Attempts::count);
        (self.of_key.holders().unwrap_or(held), waiting)
    }

    /// The attempts, and this name in the registry of this process: a handle may come from before a
    /// fork, and the child's registry starts empty.
    #[inline]
    fn attempts(&self) -> &Attempts {
        self.attempts.get_or_init(|| {
            if let (Some(registry), Some(me)) = (self.registry.upgrade(), self.me.upgrade()) {
                registry.get_or_init(Registry::default).adopt(&me);
            }
            Attempts::default()
        })
    }

    /// The attempt is over, at the backend too.
    #[inline]
    fn leave(&self, attempt: OwnerToken) {
        let attempts = self.attempts();
        let was_noted = if self.of_key.counts() {
            if attempts.has_listed() {
                attempts.forget(&[attempt]);
            }
            true
        } else {
            attempts.leave(attempt)
        };
        if was_noted {
            self.gate.left();
        }
    }

    /// Counts the attempt as held before the backend is asked, unless the backend counts; or refuses
    /// it.
    ///
    /// Invariant: an attempt is noted before the gate is read, and a shutdown closes the gate before
    /// it reads the attempts. So either it is refused, or the shutdown waits for it.
    #[inline]
    fn begin(&self, attempt: OwnerToken) -> Result<()> {
        if self.gate.is_closed() {
            return Err(self.closed());
        }
        let attempts = self.attempts();
        if !self.of_key.counts() {
            attempts.hold(attempt);
            if self.gate.is_closed() {
                self.leave(attempt);
                return Err(self.closed());
            }
        }
        Ok(())
    }

    /// Whether a shutdown may not have seen what the backend has granted just now.
    ///
    /// Invariant: as in [`begin`](Self::begin), where the backend's count stands for the note.
    #[inline]
    fn is_watched(&self) -> bool {
        self.of_key.counts() && self.gate.is_closed()
    }

    /// Asks the backend. The answer has one variable, which the caller has made room for: to move it
    /// costs as much as to note it.
    #[inline]
    fn ask(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let mut step = self.of_key.backend().acquire(key, request);
        if !matches!(step, Step::Ready(Ok(Some(_)))) || self.is_watched() {
            self.note_answer(key, request.attempt, &mut step);
        }
        step
    }

    /// Notes what the backend has answered, and refuses a grant that slipped through a shutdown.
    #[cold]
    fn note_answer(
        &self,
        key: &LockKey,
        attempt: OwnerToken,
        step: &mut Step<Result<Option<Grant>>>,
    ) {
        match step {
            Step::Ready(Ok(Some(_))) => {
                self.abandon(key, attempt);
                *step = Step::Ready(Err(self.closed()));
            }
            Step::Ready(Ok(None) | Err(_)) => self.leave(attempt),
            Step::Waiting(_) => {
                self.wait(attempt);
                let tracked = self.shared();
                let asked = std::mem::replace(step, Step::Ready(Ok(None)));
                *step = Step::wait(async move {
                    let outcome = tracked.until_closed(asked.finish()).await;
                    tracked.settle(&[attempt], outcome)
                });
            }
        }
    }

    /// The attempt must wait. Its step has not been polled, so nothing is queued yet.
    fn wait(&self, attempt: OwnerToken) {
        self.attempts().wait(attempt);
        self.gate.left();
    }

    /// Notes how the wait ended. A grant that comes after [`refuse_waiters`](Self::refuse_waiters)
    /// has been given back already.
    fn settle<T>(&self, waited: &[OwnerToken], outcome: Result<Option<T>>) -> Result<Option<T>> {
        if !matches!(outcome, Ok(Some(_))) {
            waited.iter().for_each(|attempt| self.leave(*attempt));
            return outcome;
        }
        let attempts = self.attempts();
        let settled = if self.of_key.counts() {
            attempts.forget(waited)
        } else {
            attempts.settle(waited)
        };
        if settled < waited.len() {
            return Err(self.closed());
        }
        outcome
    }

    /// Ends every wait, at the backend too. To be called once the gate is closed.
    pub(crate) fn refuse_waiters(&self) {
        let refused = self.attempts().refuse_waiters();
        for attempt in refused {
            self.of_key.abandon(&self.key, attempt);
        }
    }

    fn closed(&self) -> Error {
        Error::closed(self.of_key.backend().capabilities().name)
    }

    /// `future`, ended early when the gate closes.
    async fn until_closed<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut future = pin!(future);
        let mut closing = pin!(Arc::clone(&self.gate).closing());
        poll_fn(|context| {
            if closing.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(self.closed()));
            }
            future.as_mut().poll(context)
        })
        .await
    }

    fn shared(&self) -> Arc<Self> {
        // Invariant: whoever calls a method has the `Arc` that this was made in.
        self.me
            .upgrade()
            .unwrap_or_else(|| unreachable!("a name in use is alive"))
    }
}

#[async_trait]
impl LockBackend for Tracked {
    fn capabilities(&self) -> Capabilities {
        self.of_key.backend().capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        match self.begin(request.attempt) {
            Ok(()) => self.ask(key, request),
            Err(closed) => Step::Ready(Err(closed)),
        }
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        if !self.of_key.counts() || self.gate.is_closed() {
            return None;
        }
        // For what comes with it: after a fork, this name enters the child's registry.
        self.attempts();
        let number = self.of_key.acquire_plain(key, request)?;
        if self.is_watched() {
            self.abandon(key, request.attempt);
            return None;
        }
        Some(number)
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let attempt = grant.attempt;
        match self.of_key.backend().release(key, grant) {
            Step::Ready(outcome) => {
                if outcome.is_ok() {
                    self.leave(attempt);
                }
                Step::Ready(outcome)
            }
            Step::Waiting(future) => {
                let tracked = self.shared();
                Step::wait(async move {
                    let outcome = future.await;
                    // After an error the caller abandons the attempt.
                    if outcome.is_ok() {
                        tracked.leave(attempt);
                    }
                    outcome
                })
            }
        }
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.of_key.abandon(key, attempt);
        self.leave(attempt);
    }

    /// A detached lock is no longer held here; an attached one is.
    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (attempt, tracked) = (grant.attempt, self.shared());
        let note = move |outcome: Result<Grant>| {
            match (&outcome, change) {
                (Ok(_), Change::Attach { .. }) if !tracked.of_key.counts() => {
                    tracked.attempts().attach(attempt);
                }
                (Ok(_), Change::Detach) => tracked.leave(attempt),
                _ => {}
            }
            outcome
        };
        self.of_key.backend().alter(key, grant, change).map(note)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.of_key.backend().renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let attempts: Vec<OwnerToken> = wanted.iter().map(|(_, one)| one.attempt).collect();
        let leave = |attempts: &[OwnerToken]| attempts.iter().for_each(|one| self.leave(*one));
        for (i, attempt) in attempts.iter().enumerate() {
            if let Err(closed) = self.begin(*attempt) {
                leave(&attempts[..i]);
                return Step::Ready(Err(closed));
            }
        }
        match self.of_key.backend().acquire_many(wanted) {
            Step::Ready(outcome) => {
                if !matches!(outcome, Ok(Some(_))) {
                    leave(&attempts);
                }
                Step::Ready(outcome)
            }
            Step::Waiting(future) => {
                attempts.iter().for_each(|attempt| self.wait(*attempt));
                let tracked = self.shared();
                Step::wait(async move {
                    let outcome = tracked.until_closed(future).await;
                    tracked.settle(&attempts, outcome)
                })
            }
        }
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.of_key.backend().inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.of_key.backend().break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.of_key.backend().close().await
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let registry = self.registry.upgrade();
        if let Some(registry) = registry.as_deref().and_then(ForkLocal::get) {
            registry.forget(&self.key);
        }
    }
}

#[cfg(all(test, feature = "threading"))]
mod tests;
