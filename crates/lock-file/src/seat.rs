//! A holder or waiter of this process, and what it hears.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use lock_core::{
    Fence, Grant, Handoff, LossReason, OwnerToken, Party, Request, Result, Validity, runtime,
};
use smallvec::SmallVec;

use crate::kernel::{Entry, Kernel};
use crate::key_file::Hears;

/// A holder or waiter of this process.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) request: Request,
    /// Since when it waits or holds.
    pub(crate) since: SystemTime,
    pub(crate) place: Option<Place>,
    /// It is a thread that waits, which can sleep on the key's bells.
    pub(crate) parks: Cell<bool>,
    pub(crate) held: Option<Hold>,
}

/// Where a waiter finds its grant.
pub(crate) type Place = Arc<Handoff<Result<Option<Grant>>>>;

impl Seat {
    /// How this waiter hears of what other processes give back.
    pub(crate) fn hears(&self, kernel: &mut Kernel) -> Hears {
        match self.parks.get() && kernel.can_sleep() {
            true => Hears::Asleep,
            false => Hears::ByFile,
        }
    }

    /// Holds from now on. Returns the grant.
    pub(crate) fn hold(&mut self, attempt: OwnerToken, entry: Entry) -> Grant {
        self.since = entry.since;
        let validity = Validity::unleased();
        self.held.insert(Hold { entry, validity }).grant(attempt)
    }

    /// The number of an exclusive holder.
    pub(crate) fn number(&self) -> Option<lock_core::FencingNumber> {
        match self.held.as_ref()?.entry.fence {
            Fence::Exclusive(number) => Some(number),
            Fence::Shared(_) | Fence::Permit(_) => None,
        }
    }
}

/// What a holder has, and the signal that it lost it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) entry: Entry,
    pub(crate) validity: Validity,
}

impl Hold {
    pub(crate) fn grant(&self, attempt: OwnerToken) -> Grant {
        Grant {
            attempt,
            fence: self.entry.fence,
            validity: Some(self.validity.clone()),
        }
    }
}

/// A party that does not hold yet.
pub(crate) fn waiting_party(
    request: &Request,
    since: SystemTime,
    place: Option<Place>,
) -> Party<Seat> {
    Party {
        attempt: request.attempt,
        mode: request.mode,
        priority: request.priority,
        data: Seat {
            request: request.clone(),
            since,
            place,
            parks: Cell::new(false),
            held: None,
        },
    }
}

/// What is to be done once the key's lock is left.
#[derive(Debug, Default)]
#[must_use = "waiters sleep on unless the aftermath is run"]
pub(crate) struct Aftermath {
    pub(crate) wakers: SmallVec<[Waker; 2]>,
    pub(crate) lost: SmallVec<[Validity; 1]>,
    pub(crate) task: ForTask,
}

/// What the task that competes for the head has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForTask {
    #[default]
    Nothing,
    /// Look again.
    Nudge,
    Start,
}

impl Aftermath {
    /// Tells everybody but the task, for which it returns the news.
    pub(crate) fn run(self) -> ForTask {
        // Invariant: no lock of this backend is held here, so wakers may come back.
        for validity in self.lost {
            validity.lose(LossReason::Revoked);
        }
        for waker in self.wakers {
            runtime::wake(waker);
        }
        self.task
    }
}
