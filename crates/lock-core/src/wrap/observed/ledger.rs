//! What waits and what is held, so that each end is reported once.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::{Event, EventKind, Observer};
use crate::clock::Instant;
use crate::fork::ForkLocal;
use crate::{
    ErrorKind, Grant, LockKey, LossReason, Lost, Mode, OwnerToken, Released, Result, Validity,
    runtime,
};

/// The attempts that wait or hold, and whom to tell.
///
/// Invariant: an end is reported by whoever takes the attempt out of the table, so only once.
pub(super) struct Ledger {
    observer: Arc<dyn Observer>,
    table: ForkLocal<Mutex<HashMap<OwnerToken, Tracked>>>,
}

/// An acquire that was asked for.
pub(super) struct Asked {
    pub(super) key: LockKey,
    pub(super) mode: Mode,
    pub(super) attempt: OwnerToken,
}

pub(super) struct Tracked {
    key: LockKey,
    mode: Mode,
    since: Instant,
    stage: Stage,
}

enum Stage {
    Waiting,
    Holding {
        validity: Option<Validity>,
        /// Wakes a [`LossWatch`]; taken back when the hold ends.
        watch: Option<Lost>,
    },
}

impl Ledger {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self {
            observer,
            table: ForkLocal::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<OwnerToken, Tracked>> {
        self.table
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, key: &LockKey, mode: Mode, attempt: OwnerToken, kind: EventKind) {
        let event = Event {
            key,
            mode,
            attempt,
            kind,
        };
        let told = catch_unwind(AssertUnwindSafe(|| self.observer.observe(&event)));
        if told.is_err() {
            tracing::error!(%key, ?kind, "a lock observer panicked");
        }
    }

    fn tell(&self, asked: &Asked, kind: EventKind) {
        self.report(&asked.key, asked.mode, asked.attempt, kind);
    }

    pub(super) fn attempted(&self, asked: &Asked) {
        self.tell(asked, EventKind::Attempted);
    }

    /// Reports a failure if the backend panics instead of answering.
    pub(super) fn asking<'a>(&'a self, asked: &'a [Asked]) -> Asking<'a> {
        Asking {
            ledger: self,
            asked,
        }
    }

    pub(super) fn wait(&self, asked: &Asked) {
        let tracked = Tracked {
            key: asked.key.clone(),
            mode: asked.mode,
            since: Instant::now(),
            stage: Stage::Waiting,
        };
        let replaced = self.table().insert(asked.attempt, tracked);
        drop(replaced);
        self.tell(asked, EventKind::Waiting);
    }

    /// Ends a wait, unless it was abandoned, and says how long it took.
    pub(super) fn wait_over(&self, attempt: OwnerToken) -> Option<Duration> {
        let tracked = self.take(attempt)?;
        Some(tracked.elapsed())
    }

    /// Reports the answer to an acquire.
    pub(super) fn settle(
        self: &Arc<Self>,
        asked: &Asked,
        waited: Option<Duration>,
        outcome: &Result<Option<Grant>>,
    ) {
        match outcome {
            Ok(Some(grant)) => {
                if self.hold(&asked.key, asked.mode, grant) {
                    self.tell(asked, EventKind::Acquired { waited });
                    self.watch(grant);
                }
            }
            Ok(None) => self.tell(asked, EventKind::Contended { waited }),
            Err(error) => {
                let kind = error.kind();
                self.tell(asked, EventKind::Failed { kind, waited });
            }
        }
    }

    pub(super) fn attached(self: &Arc<Self>, key: &LockKey, mode: Mode, grant: &Grant) {
        if self.hold(key, mode, grant) {
            self.report(key, mode, grant.attempt, EventKind::Attached);
            self.watch(grant);
        }
    }

    /// False when the attempt was known to hold already.
    fn hold(&self, key: &LockKey, mode: Mode, grant: &Grant) -> bool {
        let tracked = Tracked {
            key: key.clone(),
            mode,
            since: Instant::now(),
            stage: Stage::Holding {
                validity: grant.validity.clone(),
                watch: None,
            },
        };
        let replaced = self.table().insert(grant.attempt, tracked);
        replaced.is_none_or(|replaced| matches!(replaced.stage, Stage::Waiting))
    }

    /// Hears of the loss of a grant that can be lost.
    fn watch(self: &Arc<Self>, grant: &Grant) {
        let Some(validity) = &grant.validity else {
            return;
        };
        let attempt = grant.attempt;
        let waker = Waker::from(Arc::new(LossWatch {
            ledger: Arc::downgrade(self),
            attempt,
        }));
        let mut lost = validity.lost();
        let heard = Pin::new(&mut lost).poll(&mut Context::from_waker(&waker));
        let mut unused = Some(lost);
        if let Some(Tracked {
            stage: Stage::Holding { watch, .. },
            ..
        }) = self.table().get_mut(&attempt)
        {
            std::mem::swap(watch, &mut unused);
        }
        drop(unused);
        // The signal may have come before the attempt could be found in the table.
        if heard.is_ready() || validity.peek_loss().is_some() {
            self.end(attempt, None);
        }
    }

    pub(super) fn downgraded(&self, attempt: OwnerToken) {
        let shared = Mode::Shared;
        let key = self.table().get_mut(&attempt).map(|tracked| {
            tracked.mode = shared;
            tracked.key.clone()
        });
        if let Some(key) = key {
            self.report(&key, shared, attempt, EventKind::Downgraded);
        }
    }

    pub(super) fn detached(&self, attempt: OwnerToken) {
        if let Some(tracked) = self.take(attempt) {
            let held = tracked.elapsed();
            let kind = EventKind::Detached { held };
            self.report(&tracked.key, tracked.mode, attempt, kind);
        }
    }

    pub(super) fn take(&self, attempt: OwnerToken) -> Option<Tracked> {
        self.table().remove(&attempt)
    }

    /// Reports the end of an attempt, unless that was done before.
    pub(super) fn end(&self, attempt: OwnerToken, released: Option<Released>) {
        if let Some(ended) = self.take(attempt) {
            self.report_end(attempt, ended, released);
        }
    }

    pub(super) fn report_end(
        &self,
        attempt: OwnerToken,
        ended: Tracked,
        released: Option<Released>,
    ) {
        let kind = match ended.loss(released) {
            _ if matches!(ended.stage, Stage::Waiting) => EventKind::Abandoned {
                waited: ended.elapsed(),
            },
            Some(reason) => EventKind::Lost {
                reason,
                held: ended.elapsed(),
            },
            None => EventKind::Released {
                held: ended.elapsed(),
            },
        };
        self.report(&ended.key, ended.mode, attempt, kind);
    }
}

impl Tracked {
    fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.since)
    }

    fn loss(&self, released: Option<Released>) -> Option<LossReason> {
        let Stage::Holding { validity, .. } = &self.stage else {
            return None;
        };
        let signalled = validity.as_ref().and_then(Validity::peek_loss);
        signalled
            .or_else(|| (released == Some(Released::AlreadyLost)).then_some(LossReason::Revoked))
    }
}

/// A call to the backend that has not returned.
pub(super) struct Asking<'a> {
    ledger: &'a Ledger,
    asked: &'a [Asked],
}

impl Asking<'_> {
    pub(super) fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        for asked in self.asked {
            let failed = EventKind::Failed {
                kind: ErrorKind::Backend,
                waited: None,
            };
            self.ledger.tell(asked, failed);
        }
    }
}

/// Reports a loss, apart from the thread that noticed it: that one has leases to renew.
struct LossWatch {
    ledger: Weak<Ledger>,
    attempt: OwnerToken,
}

impl Wake for LossWatch {
    fn wake(self: Arc<Self>) {
        runtime::run_apart(move || {
            if let Some(ledger) = self.ledger.upgrade() {
                ledger.end(self.attempt, None);
            }
        });
    }
}
