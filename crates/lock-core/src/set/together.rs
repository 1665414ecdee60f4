//! Several locks of one backend in one step.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::GuardSet;
use crate::acquire::HoldLimits;
use crate::clock::Instant;
use crate::lock::Shared;
use crate::{AcquireOptions, Grant, Lock, LockGuard, LockKey, Request, Result, Wait, runtime};

/// Takes all locks in one step, where they share a backend that can do it. `None` when they do not,
/// when one of them is contended, or when the answer does not come in time: then they have to be
/// waited for one by one.
pub(super) async fn acquire(locks: &[&Lock], options: &AcquireOptions) -> Result<Option<GuardSet>> {
    let [first, _, ..] = locks else {
        return Ok(None);
    };
    let backend = first.backend();
    let shared = locks
        .iter()
        .all(|lock| Arc::ptr_eq(lock.backend(), backend));
    if !shared || !backend.capabilities().acquire_many {
        return Ok(None);
    }
    // Invariant: made before the backend hears of the attempts, so that they end with it.
    let mut attempts = Attempts {
        locks: locks.iter().map(|lock| Arc::clone(lock.shared())).collect(),
        wanted: wanted(locks, options)?,
    };
    let step = backend.acquire_many(&attempts.wanted);
    match before(options.wait().deadline(), step.finish()).await {
        Some(Ok(Some(grants))) => Ok(Some(attempts.settle(grants, options))),
        Some(Ok(None)) => {
            attempts.wanted.clear();
            Ok(None)
        }
        Some(Err(error)) => Err(error),
        None => Ok(None),
    }
}

fn wanted(locks: &[&Lock], options: &AcquireOptions) -> Result<Vec<(LockKey, Request)>> {
    let request = |lock: &&Lock| Ok((lock.key().clone(), options.to_request(Wait::Now)?));
    locks.iter().map(request).collect()
}

/// The output of a future, unless the deadline passes first.
async fn before<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(runtime::sleep(deadline.remaining())));
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The attempts of one step. Dropping it ends those that are not settled.
struct Attempts {
    locks: Vec<Arc<Shared>>,
    wanted: Vec<(LockKey, Request)>,
}

impl Attempts {
    fn settle(&mut self, grants: Vec<Grant>, options: &AcquireOptions) -> GuardSet {
        let wanted = std::mem::take(&mut self.wanted);
        let locks = std::mem::take(&mut self.locks);
        let guard = |((lock, (_, request)), grant): ((Arc<Shared>, (LockKey, Request)), Grant)| {
            match HoldLimits::of(options) {
                None => LockGuard::new(lock, grant, request.mode),
                Some(limits) => LockGuard::limited(lock, grant, request.mode, limits),
            }
        };
        GuardSet {
            guards: locks
                .into_iter()
                .zip(wanted)
                .zip(grants)
                .map(guard)
                .collect(),
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        for (lock, (key, request)) in self.locks.iter().zip(&self.wanted).rev() {
            lock.backend.abandon(key, request.attempt);
        }
    }
}
