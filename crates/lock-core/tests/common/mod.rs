//! A small real backend in memory: what the wrappers are tested around.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and a test fails by panicking"
)]

pub(crate) mod world;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, Error, ErrorKind, Fence, FencingNumber, Grant, Handoff, InspectPage,
    InspectQuery, KeyQueue, LeaseKind, LockBackend, LockKey, LossReason, Mode, OwnerId, OwnerToken,
    Party, Refusal, Released, Renewal, Renewed, Request, Result, Scope, Slot, Step, Validity, Wait,
};

/// What a holder or waiter is told.
#[derive(Clone, Debug)]
struct Told {
    owner: Option<OwnerId>,
    grant: Grant,
    answer: Arc<Handoff<Grant>>,
}

type Keys = HashMap<LockKey, KeyQueue<Told>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    keys: Mutex<Keys>,
    /// Grants can be lost.
    losable: bool,
    /// The next acquire panics once it has done its work.
    panics: AtomicBool,
    /// How many acquires were ever queued.
    queued: AtomicUsize,
    bases: AtomicUsize,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn losable() -> Arc<Self> {
        Arc::new(Self(Arc::new(Inner {
            losable: true,
            ..Inner::default()
        })))
    }

    /// How many acquires were ever queued: an unpolled step queues none.
    pub(crate) fn queued(&self) -> usize {
        self.0.queued.load(Ordering::SeqCst)
    }

    pub(crate) fn panic_next(&self) {
        self.0.panics.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.keys.lock().unwrap().is_empty()
    }

    pub(crate) fn waiters(&self, key: &LockKey) -> usize {
        let keys = self.0.keys.lock().unwrap();
        keys.get(key).map_or(0, |queue| queue.waiters().count())
    }

    /// Who holds a key and who waits for it, the next one first.
    pub(crate) fn parties(&self, key: &LockKey) -> [Vec<(OwnerId, Mode)>; 2] {
        let keys = self.0.keys.lock().unwrap();
        let owner = |party: &Party<Told>| (party.data.owner.unwrap(), party.mode);
        keys.get(key).map_or_else(Default::default, |queue| {
            [
                queue.holders().map(owner).collect(),
                queue.waiters().map(owner).collect(),
            ]
        })
    }

    fn told(&self, request: &Request) -> Told {
        let base = self.0.bases.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        let fence = match request.mode {
            Mode::Exclusive => Fence::Exclusive(FencingNumber::from_base(base).unwrap()),
            Mode::Shared => Fence::Shared(None),
            Mode::Permit(_) => Fence::Permit(Slot(0)),
        };
        Told {
            owner: request.owner,
            grant: Grant {
                attempt: request.attempt,
                fence,
                validity: self.0.losable.then(Validity::unleased),
            },
            answer: Arc::default(),
        }
    }

    /// Enters or, if `queue` says so, queues.
    fn enter(&self, key: &LockKey, request: &Request, queue: bool) -> Result<Option<Told>> {
        let told = self.told(request);
        let mut keys = self.0.keys.lock().unwrap();
        let line = keys.entry(key.clone()).or_default();
        let party = Party {
            attempt: request.attempt,
            mode: request.mode,
            priority: request.priority,
            data: told.clone(),
        };
        match line.admits(request.mode, request.priority) {
            Ok(()) => {
                line.enter(party);
                drop(told.answer.give(told.grant.clone()));
                Ok(Some(told))
            }
            Err(Refusal::Contended) if queue => {
                self.0.queued.fetch_add(1, Ordering::SeqCst);
                line.enqueue(party);
                Ok(Some(told))
            }
            Err(Refusal::Contended) => Ok(None),
            Err(Refusal::Conflict(_)) => Err(Error::new(ErrorKind::ModeConflict, "")),
        }
    }

    fn leave(&self, key: &LockKey, attempt: OwnerToken) -> bool {
        let mut wakers = Vec::new();
        let mut keys = self.0.keys.lock().unwrap();
        let Some(line) = keys.get_mut(key) else {
            return false;
        };
        let gone = line.leave(attempt, |party| {
            wakers.extend(party.data.answer.give(party.data.grant.clone()));
        });
        if line.is_idle() {
            keys.remove(key);
        }
        drop(keys);
        wakers.into_iter().for_each(Waker::wake);
        gone.is_some()
    }
}

#[async_trait]
impl LockBackend for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("memory", Scope::Process, LeaseKind::KernelHeld)
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let entered = self.enter(key, request, false);
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "asked to");
        match entered {
            Ok(Some(told)) => Step::Ready(Ok(Some(told.grant))),
            Ok(None) if request.wait == Wait::Now => Step::Ready(Ok(None)),
            Ok(None) => {
                let (backend, key, request) = (self.clone(), key.clone(), request.clone());
                Step::wait(async move {
                    let told = backend.enter(&key, &request, true)?.unwrap();
                    Ok(Some(poll_fn(|cx| told.answer.poll_take(cx)).await))
                })
            }
            Err(error) => Step::Ready(Err(error)),
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        Step::Ready(Ok(if self.leave(key, grant.attempt) {
            Released::Released
        } else {
            Released::AlreadyLost
        }))
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.leave(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let mut grant = grant.clone();
        if change == Change::Downgrade {
            let mut wakers = Vec::new();
            let mut keys = self.0.keys.lock().unwrap();
            let line = keys.get_mut(key).unwrap();
            let altered = line.downgrade(grant.attempt, |party| {
                wakers.extend(party.data.answer.give(party.data.grant.clone()));
            });
            drop(keys);
            if altered.is_err() {
                let refused = Error::new(ErrorKind::ModeConflict, "");
                return Step::Ready(Err(refused));
            }
            assert_eq!(altered, Ok(Some(())));
            wakers.into_iter().for_each(Waker::wake);
            grant.fence = Fence::Shared(None);
        }
        if let Change::Transfer(owner) = change {
            let mut keys = self.0.keys.lock().unwrap();
            let holder = keys.get_mut(key).unwrap().holder_mut(grant.attempt);
            holder.unwrap().data.owner = Some(owner);
        }
        Step::Ready(Ok(grant))
    }

    async fn renew(&self, _: &[Renewal]) -> Result<Vec<Renewed>> {
        Err(Error::unsupported("memory", "leases"))
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let mut grants = Vec::new();
        for (key, request) in wanted {
            match self.enter(key, request, false) {
                Ok(Some(told)) => grants.push(told.grant),
                refused => {
                    for ((key, _), grant) in wanted.iter().zip(&grants) {
                        self.leave(key, grant.attempt);
                    }
                    return Step::Ready(refused.map(|_| None));
                }
            }
        }
        Step::Ready(Ok(Some(grants)))
    }

    async fn inspect(&self, _: InspectQuery) -> Result<InspectPage> {
        Ok(InspectPage::default())
    }

    async fn break_lock(&self, key: &LockKey, _: Option<OwnerToken>) -> Result<usize> {
        let broken: Vec<Grant> = {
            let keys = self.0.keys.lock().unwrap();
            let holders = keys.get(key).into_iter().flat_map(KeyQueue::holders);
            holders.map(|party| party.data.grant.clone()).collect()
        };
        for grant in &broken {
            let validity = grant.validity.as_ref().unwrap();
            validity.lose(LossReason::Revoked);
            self.leave(key, grant.attempt);
        }
        Ok(broken.len())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn key(name: impl AsRef<str>) -> LockKey {
    LockKey::new(name).unwrap()
}

/// Polls once, without a task.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Asserts that something becomes true soon.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 30, "not in time: {what}");
        std::thread::yield_now();
    }
}
