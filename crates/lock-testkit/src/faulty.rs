//! Backends with planted defects: the negative controls of the suite.
//!
//! A case that passes on a broken backend proves nothing. Each [`Defect`] breaks one promise, and the
//! cases about that promise must fail.

mod kit;

use std::collections::HashMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, ErrorKind, Fence, FencingNumber, Grant, InspectPage, InspectQuery,
    KeyReport, LockBackend, LockKey, Mode, OwnerToken, Released, Renewal, Renewed, Request, Result,
    Slot, Step, Wait, block_on,
};

pub use kit::FaultyKit;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// A lock that is held is granted once more to whoever asks.
    GrantsTwice,
    /// An attempt that is dropped stays queued, or held.
    IgnoresAbandon,
    /// A release of a finished grant frees whoever holds now.
    ReleaseFreesNextHolder,
    /// A second release says that the lock was ours.
    ReleaseLies,
    /// Fencing numbers repeat.
    FencingRepeats,
    /// Fencing numbers go back now and then.
    FencingGoesBack,
    /// Asking for shared overtakes a waiting exclusive.
    SharedOvertakes,
    /// Permits are granted beyond the maximum.
    PermitsUncounted,
    /// All permits have the same slot.
    SlotsRepeat,
    /// A mode conflict is reported as contention.
    ConflictIsContention,
    /// Nobody is told of a grant.
    LosesWakeUps,
    /// A step asks before it is polled.
    AsksEagerly,
    /// Priorities are ignored.
    IgnoresPriority,
    /// Waiters are served in another order than they came.
    ServesLatecomersFirst,
    /// A downgrade releases and acquires again.
    DowngradeHasGap,
    /// Letters of either case make one name.
    FoldsCase,
    /// Namespaces are one.
    JoinsNamespaces,
    /// One attempt in [`Wait::Now`] waits a while.
    TryWaits,
    /// Options that are not supported are dropped.
    DropsOptions,
    /// A close does nothing.
    IgnoresClose,
    /// A detached lock is released.
    DetachReleases,
    /// Wakers run while the backend holds a lock of its own.
    WakesUnderItsLock,
}

/// A backend with a defect.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn LockBackend>,
    defect: Defect,
    shared: Arc<Shared>,
}

/// What the clients of one store share.
#[derive(Debug, Default)]
struct Shared {
    counter: AtomicU64,
    /// Priorities handed out to reverse the order.
    arrivals: AtomicU64,
    /// Who holds, as far as release and abandon need it.
    holders: Mutex<HashMap<LockKey, OwnerToken>>,
    /// Held while wakers run, for the defect that does so.
    table: Mutex<()>,
}

impl Faulty {
    /// Breaks `inner`.
    pub fn new(inner: Arc<dyn LockBackend>, defect: Defect) -> Self {
        Self {
            inner,
            defect,
            shared: Arc::default(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn key(&self, key: &LockKey) -> LockKey {
        let folded = match self.defect {
            Defect::FoldsCase => LockKey::new(key.name().to_lowercase())
                .and_then(|name| name.in_namespace(key.namespace())),
            // The trial's own part stays, so that trials do not meet.
            Defect::JoinsNamespaces => {
                let trial: Vec<&str> = key.namespace().splitn(4, '-').take(3).collect();
                key.in_namespace(&trial.join("-"))
            }
            _ => return key.clone(),
        };
        folded.unwrap_or_else(|_| key.clone())
    }

    fn request(&self, request: &Request) -> Request {
        let mut request = request.clone();
        match self.defect {
            Defect::IgnoresPriority => request.priority = 0,
            Defect::ServesLatecomersFirst => {
                let arrival = self.shared.arrivals.fetch_add(1, Ordering::SeqCst);
                request.priority = (arrival % 100) as i8;
            }
            Defect::DropsOptions => (request.ttl, request.lock_delay) = (None, None),
            Defect::TryWaits if request.wait == Wait::Now => request.wait = Wait::Forever,
            _ => {}
        }
        request
    }

    /// A grant out of thin air.
    fn forge(&self, request: &Request) -> Grant {
        let number = self.shared.counter.fetch_add(1, Ordering::SeqCst) + (1 << 40);
        let fence = match (request.mode, FencingNumber::from_base(number)) {
            (Mode::Exclusive, Some(number)) => Fence::Exclusive(number),
            (Mode::Permit(_), _) => Fence::Permit(Slot(0)),
            _ => Fence::Shared(None),
        };
        Grant {
            attempt: request.attempt,
            fence,
            validity: None,
        }
    }

    fn report(&self, key: &LockKey) -> KeyReport {
        let page = block_on(self.inner.inspect(InspectQuery::key(key.clone())));
        let report = page.ok().and_then(|page| page.keys.into_iter().next());
        report.unwrap_or_else(|| KeyReport::idle(key.clone()))
    }

    /// What the defect grants that nobody should.
    fn undue(&self, key: &LockKey, request: &Request) -> Option<Grant> {
        let undue = match (self.defect, request.mode) {
            (Defect::GrantsTwice, _) => !self.report(key).holders.is_empty(),
            (Defect::PermitsUncounted, Mode::Permit(_)) => {
                let holders = self.report(key).holders;
                !holders.is_empty() && holders.iter().all(|party| party.mode == request.mode)
            }
            (Defect::SharedOvertakes, Mode::Shared) => {
                let report = self.report(key);
                !report.waiters.is_empty()
                    && report
                        .holders
                        .iter()
                        .all(|party| party.mode == Mode::Shared)
            }
            _ => false,
        };
        undue.then(|| self.forge(request))
    }

    fn remember(&self, key: &LockKey, grant: &Grant) -> Grant {
        let mut grant = grant.clone();
        self.holders().insert(key.clone(), grant.attempt);
        let turn = self.shared.counter.fetch_add(1, Ordering::SeqCst);
        match (self.defect, &mut grant.fence) {
            (Defect::FencingRepeats, Fence::Exclusive(number)) => {
                *number = FencingNumber::from_base(7).unwrap_or(*number);
            }
            (Defect::FencingGoesBack, Fence::Exclusive(number)) if turn % 5 == 4 => {
                *number = FencingNumber::from_base(0).unwrap_or(*number);
            }
            (Defect::SlotsRepeat, Fence::Permit(slot)) => *slot = Slot(0),
            _ => {}
        }
        grant
    }

    fn holders(&self) -> std::sync::MutexGuard<'_, HashMap<LockKey, OwnerToken>> {
        self.shared
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, key: &LockKey, outcome: Result<Option<Grant>>) -> Result<Option<Grant>> {
        match outcome {
            Ok(Some(grant)) => Ok(Some(self.remember(key, &grant))),
            Err(error)
                if self.has(Defect::ConflictIsContention)
                    && error.kind() == ErrorKind::ModeConflict =>
            {
                Ok(None)
            }
            other => other,
        }
    }
}

#[async_trait]
impl LockBackend for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let (key, request) = (self.key(key), self.request(request));
        if let Some(grant) = self.undue(&key, &request) {
            return Step::Ready(Ok(Some(grant)));
        }
        let step = {
            let table = self.shared.table.lock();
            let step = self.inner.acquire(&key, &request);
            drop(table);
            step
        };
        let mut future = match step {
            Step::Ready(outcome) => return Step::Ready(self.answer(&key, outcome)),
            Step::Waiting(future) => future,
        };
        if self.has(Defect::AsksEagerly) {
            // Whether it is ready does not matter here.
            let _ = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
        }
        let this = self.clone();
        if self.has(Defect::LosesWakeUps) {
            let deaf = std::future::poll_fn(move |_| {
                Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
            });
            return Step::wait(async move { this.answer(&key, deaf.await) });
        }
        Step::wait(async move { this.answer(&key, future.await) })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let key = self.key(key);
        let table = self
            .has(Defect::WakesUnderItsLock)
            .then(|| self.shared.table.lock());
        let step = self.inner.release(&key, grant);
        drop(table);
        let this = self.clone();
        step.map(move |outcome| {
            let late = matches!(outcome, Ok(Released::AlreadyLost));
            if late && this.has(Defect::ReleaseFreesNextHolder) {
                let holder = this.holders().get(&key).copied();
                holder.inspect(|&attempt| this.inner.abandon(&key, attempt));
            }
            if late && this.has(Defect::ReleaseLies) {
                return Ok(Released::Released);
            }
            outcome
        })
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        if !self.has(Defect::IgnoresAbandon) {
            self.inner.abandon(&self.key(key), attempt);
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let key = self.key(key);
        match change {
            Change::Downgrade if self.has(Defect::DowngradeHasGap) => {
                let (inner, grant) = (Arc::clone(&self.inner), grant.clone());
                Step::wait(async move {
                    inner.release(&key, &grant).finish().await?;
                    let request = Request::new(grant.attempt, Mode::Shared, Wait::Forever);
                    let again = inner.acquire(&key, &request).finish().await?;
                    Ok(again.unwrap_or(grant))
                })
            }
            Change::Detach if self.has(Defect::DetachReleases) => {
                self.inner.abandon(&key, grant.attempt);
                Step::Ready(Ok(grant.clone()))
            }
            _ => self.inner.alter(&key, grant, change),
        }
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        self.inner.acquire_many(wanted)
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.inner.break_lock(&self.key(key), attempt).await
    }

    async fn close(&self) -> Result<()> {
        if self.has(Defect::IgnoresClose) {
            return Ok(());
        }
        self.inner.close().await
    }
}

/// How long a negative control waits for what will not come.
pub const CONTROL_PATIENCE: Duration = Duration::from_millis(1500);
