//! How long a grant is good for, and the signal that it no longer is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Instant;
use crate::{OwnerToken, runtime};

/// Why a lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The lease could not be renewed before its deadline.
    Expired,
    /// The store no longer has us as the holder: an operator broke the lock, the session was
    /// killed, or the record or file was deleted.
    Revoked,
    /// The guard was held longer than its `max_hold`.
    MaxHold,
    /// The process was forked; the lock stays with the parent.
    Forked,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the lease expired before it could be renewed",
            Self::Revoked => "the backend no longer has us as the holder",
            Self::MaxHold => "it was held longer than max_hold",
            Self::Forked => "it stayed with the parent process at a fork",
        })
    }
}

/// What renews a grant: one per grant, or one for all grants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Identifies the lease in [`LockBackend::renew`](crate::LockBackend::renew).
    pub id: OwnerToken,
    /// Its life after each renewal.
    pub ttl: Duration,
}

/// How long a grant is good for: a deadline that renewals push out, and a sticky loss.
///
/// Shared by the backend that granted, the keepalive that renews, and the guard. The deadline must
/// be computed from *before* the request that granted or renewed was sent, and is read off the
/// clock at each call, so a process that was paused past it knows on its next step.
#[derive(Clone)]
pub struct Validity(Arc<Inner>);

struct Inner {
    /// Nanoseconds of [`Instant`]; `u64::MAX` for none.
    deadline: AtomicU64,
    /// 0 while held, else a loss reason.
    lost: AtomicU8,
    lease: Option<LeaseTerms>,
    watchers: Mutex<Watchers>,
    woken: Condvar,
}

#[derive(Default)]
struct Watchers {
    next_id: u64,
    wakers: Vec<(u64, Waker)>,
    callbacks: Vec<Box<dyn FnOnce(LossReason) + Send>>,
}

const NO_DEADLINE: u64 = u64::MAX;

impl Validity {
    /// A grant that lives by a lease, good until `deadline`.
    #[must_use]
    pub fn leased(terms: LeaseTerms, deadline: Instant) -> Self {
        Self::build(deadline.as_nanos(), Some(terms))
    }

    /// A grant without a lease that can still be lost: the file was deleted, the holder broken.
    #[must_use]
    pub fn unleased() -> Self {
        Self::build(NO_DEADLINE, None)
    }

    fn build(deadline: u64, lease: Option<LeaseTerms>) -> Self {
        Self(Arc::new(Inner {
            deadline: AtomicU64::new(deadline),
            lost: AtomicU8::new(0),
            lease,
            watchers: Mutex::default(),
            woken: Condvar::new(),
        }))
    }

    /// The lease to renew, if there is one.
    pub fn lease(&self) -> Option<LeaseTerms> {
        self.0.lease
    }

    /// When the grant ends unless it is renewed; `None` if it does not end by itself.
    pub fn deadline(&self) -> Option<Instant> {
        match self.0.deadline.load(Ordering::Acquire) {
            NO_DEADLINE => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }

    /// Pushes the deadline out. A loss is never taken back, and a deadline never moved closer:
    /// replies may arrive out of order.
    pub fn extend(&self, deadline: Instant) {
        self.0
            .deadline
            .fetch_max(deadline.as_nanos(), Ordering::AcqRel);
    }

    /// Why the grant is lost, if it is. Reads the clock: a deadline that has passed is a loss from
    /// this call on, for every holder of this value.
    pub fn loss(&self) -> Option<LossReason> {
        if let Some(reason) = decode(self.0.lost.load(Ordering::Acquire)) {
            return Some(reason);
        }
        if self.deadline().is_some_and(Instant::has_passed) {
            self.lose(LossReason::Expired);
            return decode(self.0.lost.load(Ordering::Acquire));
        }
        None
    }

    /// Signals the loss. Returns whether this was the first time; later calls change nothing.
    ///
    /// Wakers run on this thread, callbacks on a thread of their own, neither under a lock.
    pub fn lose(&self, reason: LossReason) -> bool {
        let code = encode(reason);
        if self
            .0
            .lost
            .compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return false;
        }
        let watchers = std::mem::take(&mut *self.watchers());
        self.0.woken.notify_all();
        for (_, waker) in watchers.wakers {
            waker.wake();
        }
        for callback in watchers.callbacks {
            runtime::run_apart(move || callback(reason));
        }
        true
    }

    /// A handle on the loss signal.
    pub fn lost(&self) -> Lost {
        Lost {
            validity: Some(self.clone()),
            registered: None,
        }
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validity")
            .field("deadline", &self.deadline())
            .field("lost", &decode(self.0.lost.load(Ordering::Acquire)))
            .field("lease", &self.0.lease)
            .finish()
    }
}

fn encode(reason: LossReason) -> u8 {
    match reason {
        LossReason::Expired => 1,
        LossReason::Revoked => 2,
        LossReason::MaxHold => 3,
        LossReason::Forked => 4,
    }
}

fn decode(code: u8) -> Option<LossReason> {
    match code {
        0 => None,
        1 => Some(LossReason::Expired),
        2 => Some(LossReason::Revoked),
        3 => Some(LossReason::MaxHold),
        _ => Some(LossReason::Forked),
    }
}

/// The signal that a lock was lost: a future, a blocking wait, or a callback.
///
/// Never fires for a plain release, and outlives the guard it came from. A lock that cannot be lost
/// (in-process, say) has a signal that never fires.
#[derive(Debug)]
#[must_use = "a loss signal does nothing unless awaited or given a callback"]
pub struct Lost {
    validity: Option<Validity>,
    /// The waker this future left behind; taken back when it is dropped.
    registered: Option<u64>,
}

impl Lost {
    /// The signal of a lock that cannot be lost.
    pub(crate) fn never() -> Self {
        Self {
            validity: None,
            registered: None,
        }
    }

    /// Why the lock is lost, if it is.
    pub fn reason(&self) -> Option<LossReason> {
        self.validity.as_ref()?.loss()
    }

    /// Waits until the lock is lost or `limit` has passed; `None` means it is not lost.
    ///
    /// # Blocking
    /// Parks the calling thread. Do not call it on a thread that runs async tasks.
    pub fn wait_for(&self, limit: Duration) -> Option<LossReason> {
        let until = Instant::now() + limit;
        let Some(validity) = &self.validity else {
            std::thread::sleep(limit);
            return None;
        };
        loop {
            if let Some(reason) = validity.loss() {
                return Some(reason);
            }
            let left = validity
                .deadline()
                .map_or(until, |deadline| deadline.min(until))
                .remaining();
            if until.has_passed() {
                return None;
            }
            let watchers = validity.watchers();
            if decode(validity.0.lost.load(Ordering::Acquire)).is_none() {
                drop(
                    validity
                        .0
                        .woken
                        .wait_timeout(watchers, left)
                        .map_err(PoisonError::into_inner),
                );
            }
        }
    }

    /// Runs `callback` once, on a thread of its own, when the lock is lost; at once if it is
    /// already. A panic in it is reported and stops nothing.
    pub fn on_lost(self, callback: impl FnOnce(LossReason) + Send + 'static) {
        let Some(validity) = self.validity.clone() else {
            return;
        };
        let mut watchers = validity.watchers();
        match decode(validity.0.lost.load(Ordering::Acquire)) {
            None => watchers.callbacks.push(Box::new(callback)),
            Some(reason) => {
                drop(watchers);
                runtime::run_apart(move || callback(reason));
            }
        }
    }
}

impl Future for Lost {
    type Output = LossReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LossReason> {
        let Some(validity) = self.validity.clone() else {
            return Poll::Pending;
        };
        if let Some(reason) = validity.loss() {
            return Poll::Ready(reason);
        }
        let mut watchers = validity.watchers();
        // Checked again under the lock: `lose` sets the level before it takes the wakers.
        if let Some(reason) = decode(validity.0.lost.load(Ordering::Acquire)) {
            return Poll::Ready(reason);
        }
        let waker = context.waker().clone();
        match self
            .registered
            .and_then(|id| watchers.wakers.iter_mut().find(|w| w.0 == id))
        {
            Some(watcher) => watcher.1 = waker,
            None => {
                watchers.next_id += 1;
                let id = watchers.next_id;
                watchers.wakers.push((id, waker));
                self.registered = Some(id);
            }
        }
        Poll::Pending
    }
}

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self {
            validity: self.validity.clone(),
            registered: None,
        }
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let (Some(validity), Some(id)) = (&self.validity, self.registered) {
            validity.watchers().wakers.retain(|watcher| watcher.0 != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> LeaseTerms {
        LeaseTerms {
            id: OwnerToken::mint(),
            ttl: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_passed_deadline_is_a_loss_on_the_next_look() {
        let validity = Validity::leased(terms(), Instant::now() - Duration::from_millis(1));
        validity.extend(Instant::now() - Duration::from_nanos(1));
        assert_eq!(validity.loss(), Some(LossReason::Expired));
        validity.extend(Instant::now() + Duration::from_secs(9));
        assert_eq!(
            validity.loss(),
            Some(LossReason::Expired),
            "a loss is sticky"
        );
        assert!(
            !validity.lose(LossReason::Revoked),
            "a loss is counted once"
        );
    }

    #[test]
    fn a_late_reply_does_not_shorten_the_deadline() {
        let far = Instant::now() + Duration::from_secs(9);
        let validity = Validity::leased(terms(), far);
        validity.extend(Instant::now() + Duration::from_secs(1));
        assert_eq!(validity.deadline(), Some(far));
    }

    #[test]
    fn a_blocked_thread_and_a_callback_hear_of_the_loss() {
        let validity = Validity::unleased();
        let (sender, receiver) = std::sync::mpsc::channel();
        validity
            .lost()
            .on_lost(move |reason| sender.send(reason).unwrap());
        let lost = validity.lost();
        let waiting = std::thread::spawn(move || lost.wait_for(Duration::from_secs(30)));
        assert!(validity.lose(LossReason::Revoked));
        assert_eq!(waiting.join().unwrap(), Some(LossReason::Revoked));
        assert_eq!(receiver.recv().unwrap(), LossReason::Revoked);
    }
}
