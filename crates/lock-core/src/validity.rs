//! How long a grant is good for, and the signal that it no longer is.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::clock::Instant;
use crate::{Lost, OwnerToken, fork, runtime};

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

/// What a backend lets its own extensions know of a grant. Opaque to everybody else.
pub type Proof = Arc<dyn Any + Send + Sync>;

/// How long a grant is good for: a deadline that renewals push out, and a sticky loss.
///
/// Shared by the backend that granted and the keepalive that renews. The deadline must be computed
/// from *before* the request that granted or renewed was sent, and is read off the clock at each
/// call, so a process that was paused past it knows on its next step.
///
/// One lease may serve many guards, of a session or of a cohort, so each guard has a part of its own
/// by [`part`](Self::part), and ends it when it is released.
#[derive(Clone)]
pub struct Validity(Arc<Inner>);

struct Inner {
    /// Nanoseconds of [`Instant`]; `u64::MAX` for none.
    deadline: AtomicU64,
    /// 0 while held, else a loss reason, or [`ENDED`].
    lost: AtomicU8,
    lease: Option<LeaseTerms>,
    /// The fork generation it was made in: a child touches no mutex of its parent's.
    generation: u64,
    watchers: Mutex<Watchers>,
    /// What this is a part of, and its place among the parts.
    whole: Option<(Validity, usize)>,
    proof: Option<Proof>,
}

#[derive(Default)]
struct Watchers {
    next_id: u64,
    wakers: Vec<(u64, Waker)>,
    callbacks: Vec<Box<dyn FnOnce(LossReason) + Send>>,
    parts: Slab<Weak<Inner>>,
}

/// Given back: what happens to the lease from now on is no loss.
const ENDED: u8 = u8::MAX;
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
            generation: fork::generation(),
            watchers: Mutex::default(),
            whole: None,
            proof: None,
        }))
    }

    /// A part of its own for one guard: it has the lease's deadline and hears of its loss, but can
    /// be lost, or ended, alone.
    #[must_use]
    pub fn part(&self) -> Self {
        self.new_part(None)
    }

    /// A part that carries a proof of ownership, for the backend's own extensions: every part of it
    /// has the same proof, so wrappers pass it on with the grant and need not know of it.
    #[must_use]
    pub fn part_with(&self, proof: Proof) -> Self {
        self.new_part(Some(proof))
    }

    /// The proof that the backend put beside this grant, if it did.
    pub fn proof(&self) -> Option<&Proof> {
        let inherited = || self.0.whole.as_ref()?.0.proof();
        self.0.proof.as_ref().or_else(inherited)
    }

    fn new_part(&self, proof: Option<Proof>) -> Self {
        if self.is_forked() {
            return self.clone();
        }
        let mut watchers = self.watchers();
        let place = watchers.parts.vacant_entry();
        let part = Arc::new(Inner {
            deadline: AtomicU64::new(NO_DEADLINE),
            // Read under the lock: `lose` sets the level before it takes the parts.
            lost: AtomicU8::new(self.0.lost.load(Ordering::Acquire)),
            lease: self.0.lease,
            generation: self.0.generation,
            watchers: Mutex::default(),
            whole: Some((self.clone(), place.key())),
            proof,
        });
        place.insert(Arc::downgrade(&part));
        Self(part)
    }

    /// The guard gave its lock back: the signal never fires from now on. Changes nothing about what
    /// this is a part of, nor about a loss before.
    pub fn end(&self) {
        if self.is_forked() {
            return;
        }
        let held = 0;
        let ended = self
            .0
            .lost
            .compare_exchange(held, ENDED, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            let watchers = std::mem::take(&mut *self.watchers());
            drop(watchers);
        }
    }

    /// The lease to renew, if there is one.
    pub fn lease(&self) -> Option<LeaseTerms> {
        self.0.lease
    }

    /// When the grant ends unless it is renewed; `None` if it does not end by itself.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some((whole, _)) = &self.0.whole {
            return whole.deadline();
        }
        match self.0.deadline.load(Ordering::Acquire) {
            NO_DEADLINE => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }

    /// Pushes the deadline out. A loss is never taken back, and a deadline never moved closer:
    /// replies may arrive out of order.
    pub fn extend(&self, deadline: Instant) {
        if let Some((whole, _)) = &self.0.whole {
            return whole.extend(deadline);
        }
        self.0
            .deadline
            .fetch_max(deadline.as_nanos(), Ordering::AcqRel);
    }

    /// Why the grant is lost, if it is. Reads the clock: a deadline that has passed is a loss from
    /// this call on, for every holder of this value.
    pub fn loss(&self) -> Option<LossReason> {
        if let Some(reason) = self.signalled() {
            return Some(reason);
        }
        if self.is_forked() {
            return None;
        }
        if let Some((whole, _)) = &self.0.whole {
            // Whoever signals it may not have come to this part yet. One that was ended stays so.
            self.lose(whole.loss()?);
            return self.signalled();
        }
        if self.deadline().is_some_and(Instant::has_passed) {
            self.lose(LossReason::Expired);
            return self.signalled();
        }
        None
    }

    /// [`loss`](Self::loss) without signalling it, so that it can be asked under a lock.
    pub(crate) fn peek_loss(&self) -> Option<LossReason> {
        let expired = || self.deadline().is_some_and(Instant::has_passed);
        self.signalled()
            .or_else(|| expired().then_some(LossReason::Expired))
    }

    /// Signals the loss. Returns whether this was the first time; later calls change nothing.
    ///
    /// Wakers run on this thread, callbacks on a thread of their own, neither under a lock.
    pub fn lose(&self, reason: LossReason) -> bool {
        if self.is_forked() {
            return false;
        }
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
        for (_, waker) in watchers.wakers {
            runtime::wake(waker);
        }
        for callback in watchers.callbacks {
            runtime::run_apart(move || callback(reason));
        }
        let parts = watchers.parts.into_iter();
        for part in parts.filter_map(|(_, part)| part.upgrade()) {
            Self(part).lose(reason);
        }
        true
    }

    /// A handle on the loss signal.
    pub fn lost(&self) -> Lost {
        Lost::of(self.clone())
    }

    /// Leaves a waker to be woken at the loss, in the place of an earlier one; or says that it is
    /// lost already.
    pub(crate) fn watch(&self, place: Option<u64>, waker: &Waker) -> Result<u64, LossReason> {
        let mut waker = waker.clone();
        if self.is_forked() {
            return Err(LossReason::Forked);
        }
        let mut watchers = self.watchers();
        // Read under the lock: `lose` sets the level before it takes the wakers.
        if let Some(reason) = self.signalled() {
            return Err(reason);
        }
        let wakers = &mut watchers.wakers;
        if let Some((id, earlier)) = wakers.iter_mut().find(|(id, _)| Some(*id) == place) {
            let id = *id;
            std::mem::swap(earlier, &mut waker);
            // The earlier one is dropped with the lock left.
            drop(watchers);
            return Ok(id);
        }
        watchers.next_id += 1;
        let id = watchers.next_id;
        watchers.wakers.push((id, waker));
        Ok(id)
    }

    /// Takes a waker back.
    pub(crate) fn unwatch(&self, place: u64) {
        if self.is_forked() {
            return;
        }
        let mut watchers = self.watchers();
        let at = watchers.wakers.iter().position(|(id, _)| *id == place);
        let gone = at.map(|at| watchers.wakers.swap_remove(at));
        drop(watchers);
        drop(gone);
    }

    /// Runs a callback at the loss, or hands it back if it is lost already.
    pub(crate) fn call_back<F>(&self, callback: F) -> Result<(), (LossReason, F)>
    where
        F: FnOnce(LossReason) + Send + 'static,
    {
        if self.is_forked() {
            return Err((LossReason::Forked, callback));
        }
        let mut watchers = self.watchers();
        if let Some(reason) = self.signalled() {
            return Err((reason, callback));
        }
        watchers.callbacks.push(Box::new(callback));
        Ok(())
    }

    fn signalled(&self) -> Option<LossReason> {
        match self.0.lost.load(Ordering::Acquire) {
            0 if self.is_forked() => Some(LossReason::Forked),
            code => decode(code),
        }
    }

    fn is_forked(&self) -> bool {
        self.0.is_forked()
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_forked() {
            // What the parent's tasks left here stays as it was, and so does its mutex.
            std::mem::forget(std::mem::take(&mut self.watchers));
            std::mem::forget(self.whole.take());
            std::mem::forget(self.proof.take());
            return;
        }
        if let Some((whole, place)) = &self.whole {
            // Once the whole is over the place may be another's, which has nothing to hear either.
            whole.watchers().parts.try_remove(*place);
        }
    }
}

impl fmt::Debug for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validity")
            .field("deadline", &self.deadline())
            .field("lost", &self.signalled())
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
        0 | ENDED => None,
        1 => Some(LossReason::Expired),
        2 => Some(LossReason::Revoked),
        3 => Some(LossReason::MaxHold),
        _ => Some(LossReason::Forked),
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
    fn a_part_is_lost_before_whoever_signals_it_has_come_to_it() {
        let whole = Validity::leased(terms(), Instant::now() + Duration::from_secs(9));
        let (held, released) = (whole.part(), whole.part());
        released.end();
        // What `lose` does first.
        whole
            .0
            .lost
            .store(encode(LossReason::Expired), Ordering::Release);
        assert_eq!(held.loss(), Some(LossReason::Expired));
        assert_eq!(released.loss(), None);
    }

    #[test]
    fn a_part_is_lost_with_the_whole_but_ends_alone() {
        let whole = Validity::leased(terms(), Instant::now() + Duration::from_secs(9));
        let (released, held, wedged) = (whole.part(), whole.part(), whole.part());
        released.end();
        assert!(wedged.lose(LossReason::MaxHold));
        assert_eq!((whole.loss(), held.loss()), (None, None));
        assert!(whole.lose(LossReason::Revoked));
        assert_eq!(held.loss(), Some(LossReason::Revoked));
        assert_eq!(wedged.loss(), Some(LossReason::MaxHold));
        assert_eq!(released.loss(), None, "a plain release is no loss");
        assert_eq!(whole.part().loss(), Some(LossReason::Revoked));
    }

    #[test]
    fn a_part_has_the_deadline_of_the_whole() {
        let whole = Validity::leased(terms(), Instant::now() - Duration::from_millis(1));
        let (ended, held) = (whole.part(), whole.part());
        ended.end();
        let far = Instant::now() + Duration::from_secs(9);
        whole.extend(far);
        assert_eq!(held.deadline(), Some(far));
        let over = Validity::leased(terms(), Instant::now() - Duration::from_millis(1));
        let (ended, held) = (over.part(), over.part());
        ended.end();
        assert_eq!(held.loss(), Some(LossReason::Expired));
        assert_eq!(ended.loss(), None, "a plain release is no loss");
    }

    #[test]
    fn a_proof_is_found_in_every_part() {
        let session = Validity::unleased();
        let grant = session.part_with(Arc::new(7_u8));
        let proven = |of: &Validity| of.proof()?.downcast_ref::<u8>().copied();
        assert_eq!(proven(&grant.part().part()), Some(7));
        assert_eq!(proven(&session.part()), None, "another grant's proof");
    }

    #[test]
    fn parts_that_are_gone_leave_nothing() {
        let whole = Validity::unleased();
        drop(whole.part());
        assert!(whole.watchers().parts.is_empty());
    }
}
