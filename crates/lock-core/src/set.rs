//! Several locks at once, all or nothing.

mod together;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::{AcquireOptions, Lock, LockGuard, LossReason, Lost, Released, Result};

/// Takes all of `locks`, or none.
///
/// Duplicates count once. Locks are taken in one order, whatever order they are named in, so sets
/// that overlap cannot deadlock each other; the wait limit covers the whole set. When one cannot be
/// had, those taken are given back in reverse. Locks of one backend that can take
/// [several in one step](crate::Capabilities::acquire_many) are, when nobody is in the way.
///
/// # Errors
/// That of the first lock that could not be had; `Timeout` when the shared wait limit passes.
///
/// # Cancel safety
/// Dropping the future at any point leaves no lock and no queue entry.
///
/// Threads without a runtime pass it to [`block_on`](crate::block_on).
pub async fn acquire_all(locks: &[Lock], options: &AcquireOptions) -> Result<GuardSet> {
    let options = options.clone().with_fixed_deadline();
    let locks = in_order(locks);
    if let Some(set) = together::acquire(&locks, &options).await? {
        return Ok(set);
    }
    // Filled as we go, so that an error or a dropped future gives back what is there.
    let mut set = GuardSet {
        guards: Vec::with_capacity(locks.len()),
    };
    for lock in locks {
        set.guards.push(lock.acquire_with(&options).await?);
    }
    Ok(set)
}

/// By backend, then key. Every process that shares backends must agree on this order, so it rests on
/// names. Only two backends of one kind that hold the same key are told apart by where they are in
/// memory: those of one process agree on that.
fn in_order(locks: &[Lock]) -> Vec<&Lock> {
    let mut ordered: Vec<&Lock> = locks.iter().collect();
    ordered.sort_by(|a, b| order(a, b));
    ordered.dedup_by(|a, b| order(a, b).is_eq());
    ordered
}

fn order(a: &Lock, b: &Lock) -> Ordering {
    let kind = |lock: &Lock| lock.backend().capabilities().name;
    let place = |lock: &Lock| Arc::as_ptr(lock.backend()).cast::<()>();
    (kind(a), a.key(), place(a)).cmp(&(kind(b), b.key(), place(b)))
}

/// Several locks held together. Dropping it releases them in reverse order.
#[derive(Debug)]
#[must_use = "the locks are released as soon as the set is dropped"]
pub struct GuardSet {
    guards: Vec<LockGuard>,
}

impl GuardSet {
    /// The guards, in the order they were taken.
    pub fn guards(&self) -> &[LockGuard] {
        &self.guards
    }

    /// Whether every lock is still ours: one lost is all lost.
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(LockGuard::is_held)
    }

    /// Waits until the first of the locks is lost.
    ///
    /// # Cancel safety
    /// Can be dropped and called again.
    pub async fn lost(&self) -> LossReason {
        let mut signals: Vec<Lost> = self.guards.iter().map(LockGuard::lost).collect();
        std::future::poll_fn(|context| {
            for signal in &mut signals {
                let signal = std::pin::Pin::new(signal);
                if let std::task::Poll::Ready(reason) = signal.poll(context) {
                    return std::task::Poll::Ready(reason);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Gives all locks back, in reverse order, also after one of them failed. `AlreadyLost` if any
    /// was lost.
    ///
    /// # Errors
    /// The first error; the other locks are given back all the same.
    ///
    /// # Cancel safety
    /// A dropped release still gives every lock back.
    pub async fn release(mut self) -> Result<Released> {
        let mut outcome = Ok(Released::Released);
        while let Some(guard) = self.guards.pop() {
            match guard.release().await {
                Ok(Released::Released) => {}
                Ok(Released::AlreadyLost) if outcome.is_ok() => outcome = Ok(Released::AlreadyLost),
                Ok(Released::AlreadyLost) => {}
                Err(error) if outcome.is_ok() => outcome = Err(error),
                Err(_) => {}
            }
        }
        outcome
    }
}

impl Drop for GuardSet {
    fn drop(&mut self) {
        while self.guards.pop().is_some() {}
    }
}
