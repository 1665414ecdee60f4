//! One key of one backend, and who holds it.

use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::slot::{End, Slot};
use crate::{
    Anchor, Grant, LockKey, Mode, OwnerId, OwnerToken, PlainRequest, ProcessNonce, Request,
    Validity,
};

/// Who holds one key of one backend, as this process knows.
///
/// Whoever holds writes it down without asking anyone: an exclusive hold that cannot be lost in a
/// slot that nobody else writes meanwhile, every other one in a list. Nobody reads it until
/// somebody waits.
///
/// The first two fields fill a cache line, which is all that a search looks at, and neighbours do
/// not share it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Place {
    slot: Slot,
    /// How long the list is, so that nobody locks an empty one.
    crowded: AtomicUsize,
    pub(super) key: LockKey,
    /// Tells apart equal keys of backends that share a graph.
    pub(super) backend: u64,
    process: ProcessNonce,
    crowd: Mutex<Vec<Listed>>,
    /// One more than where the graph keeps the queue, while somebody waits; else zero.
    queue: AtomicUsize,
}

/// Somebody who holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) attempt: OwnerToken,
    pub(super) owner: OwnerId,
    pub(super) mode: Mode,
    pub(super) anchor: Anchor,
    pub(super) site: Option<&'static Location<'static>>,
}

impl Holder {
    /// Whoever was granted a request.
    pub(super) fn of(request: &Request) -> Self {
        let running = || OwnerId::running_in(request.attempt.process());
        Self {
            attempt: request.attempt,
            owner: request.owner.unwrap_or_else(running),
            mode: request.mode,
            anchor: request.anchor,
            site: request.site,
        }
    }
}

/// A holder in the list.
#[derive(Debug)]
struct Listed {
    holder: Holder,
    validity: Option<Validity>,
}

impl Listed {
    /// Whether it still keeps others out. Nobody waits for a grant that is lost.
    fn is_held(&self) -> bool {
        let loss = self.validity.as_ref().and_then(Validity::peek_loss);
        loss.is_none()
    }
}

impl Place {
    pub(super) fn new(backend: u64, key: LockKey) -> Self {
        Self {
            key,
            backend,
            process: ProcessNonce::current(),
            slot: Slot::default(),
            crowded: AtomicUsize::new(0),
            crowd: Mutex::default(),
            queue: AtomicUsize::new(0),
        }
    }

    /// Notes a holder. An acquire is idempotent, and so is this.
    pub(super) fn hold(&self, holder: &Holder, grant: &Grant) {
        // Invariant: one writer at a time. The backend lets nobody else hold until the one in the
        // slot has taken itself out and released; a grant that can be lost promises no such thing.
        let alone = holder.mode == Mode::Exclusive && grant.validity.is_none();
        if alone && holder.attempt.process() == self.process {
            self.slot.fill(holder, End::Anyone);
        } else {
            self.list(*holder, grant.validity.clone());
        }
    }

    /// Notes the holder of a plain request, which nobody but its guard can end.
    #[inline]
    pub(super) fn hold_plainly(&self, request: &PlainRequest) {
        let running = || OwnerId::running_in(self.process);
        let holder = Holder {
            attempt: request.attempt,
            owner: request.owner.unwrap_or_else(running),
            mode: Mode::Exclusive,
            anchor: request.anchor,
            site: Some(request.site),
        };
        self.slot.fill(&holder, End::Guard);
    }

    /// Notes a holder in the list, whatever it holds.
    pub(super) fn list(&self, holder: Holder, validity: Option<Validity>) {
        let listed = Listed { holder, validity };
        let mut crowd = self.crowd();
        let same = crowd
            .iter_mut()
            .find(|it| it.holder.attempt == holder.attempt);
        let replaced = match same {
            Some(same) => Some(std::mem::replace(same, listed)),
            None => {
                crowd.push(listed);
                self.crowded.store(crowd.len(), Ordering::Release);
                None
            }
        };
        // The last handle on a loss signal drops callbacks of users: not under the lock.
        drop(crowd);
        drop(replaced);
    }

    /// Takes a holder out; false if the attempt holds nothing here.
    #[inline]
    pub(super) fn leave(&self, attempt: OwnerToken) -> bool {
        if attempt.process() == self.process && self.slot.clear(attempt) {
            return true;
        }
        self.unlist(attempt).is_some()
    }

    #[inline(never)]
    fn unlist(&self, attempt: OwnerToken) -> Option<Listed> {
        if self.crowded.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut crowd = self.crowd();
        let at = crowd.iter().position(|it| it.holder.attempt == attempt)?;
        let gone = crowd.swap_remove(at);
        self.crowded.store(crowd.len(), Ordering::Release);
        Some(gone)
    }

    /// Changes what is known of a holder; returns what was known before.
    pub(super) fn change(
        &self,
        attempt: OwnerToken,
        change: impl FnOnce(&mut Holder),
    ) -> Option<Holder> {
        if let Some(before) = self.slot.read(self.process)
            && before.attempt == attempt
        {
            let mut holder = before;
            change(&mut holder);
            // Out of the slot: what is not exclusive any more is not alone any more.
            if !self.slot.clear(attempt) {
                return None;
            }
            self.list(holder, None);
            return Some(before);
        }
        let mut crowd = self.crowd();
        let listed = crowd.iter_mut().find(|it| it.holder.attempt == attempt)?;
        let before = listed.holder;
        change(&mut listed.holder);
        Some(before)
    }

    /// Looks at everyone who keeps others out.
    pub(super) fn each_holder(&self, mut look: impl FnMut(&Holder)) {
        if let Some(holder) = self.slot.read(self.process) {
            look(&holder);
        }
        if self.crowded.load(Ordering::Acquire) > 0 {
            let crowd = self.crowd();
            let held = crowd.iter().filter(|it| it.is_held());
            held.for_each(|it| look(&it.holder));
        }
    }

    /// Looks at the owners of all holders. A search asks this of every key that it passes.
    pub(super) fn each_owner(&self, mut look: impl FnMut(OwnerId)) {
        if let Some(owner) = self.slot.owner() {
            look(owner);
        }
        if self.crowded.load(Ordering::Acquire) > 0 {
            self.crowd().iter().for_each(|it| look(it.holder.owner));
        }
    }

    /// How many hold, with those that were lost and not given back yet.
    pub(super) fn held(&self) -> usize {
        let slot = self.slot.read(self.process).is_some();
        usize::from(slot) + self.crowded.load(Ordering::Acquire)
    }

    pub(super) fn holds(&self, attempt: OwnerToken) -> bool {
        let mut holds = false;
        self.each_holder(|holder| holds |= holder.attempt == attempt);
        holds
    }

    /// Where the graph keeps the queue, while somebody waits.
    pub(super) fn queue(&self) -> Option<usize> {
        self.queue.load(Ordering::Acquire).checked_sub(1)
    }

    /// Invariant: written with the graph locked only.
    pub(super) fn set_queue(&self, queue: Option<usize>) {
        let entry = queue.map_or(0, |queue| queue + 1);
        self.queue.store(entry, Ordering::Release);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held() == 0 && self.queue().is_none()
    }

    fn crowd(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
