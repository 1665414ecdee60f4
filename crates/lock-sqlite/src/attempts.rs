//! The attempts of this process: what each waits for or holds, and who is told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Error, Grant, LeaseTerms, LockKey, LossReason, Mode, OwnerToken, Result, Validity, runtime,
};

use crate::enter::{Enter, Place};
use crate::leave::Leave;
use crate::news::Claim;

/// All attempts of this process that are not over.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    table: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    attempt: OwnerToken,
    key: LockKey,
    mode: Mode,
    ttl: Option<Duration>,
    /// It was granted after others.
    has_waited: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Asked. Its place in the queue is known only once the transaction is over.
    Waits {
        place: Place,
        is_queued: bool,
    },
    Holds(Grant),
    /// Being ended.
    Leaves,
    /// Its end failed, and is tried again.
    Owed,
}

/// How many attempts are in which stage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) waiting: usize,
    pub(crate) holding: usize,
    pub(crate) owed: usize,
}

impl Attempts {
    /// An attempt that is about to ask. The place is the earlier one if it has asked before.
    pub(crate) fn ask(&self, enter: &Enter, place: Place) -> Asked {
        let counter = enter.request().attempt.counter();
        let mut table = self.table();
        let asked = match table.get(&counter).map(|entry| &entry.stage) {
            Some(Stage::Waits { place, .. }) => return Asked::Before(Place::clone(place)),
            Some(Stage::Holds(grant)) => return Asked::Holds(grant.clone()),
            Some(Stage::Leaves | Stage::Owed) => return Asked::Over,
            None => Place::clone(&place),
        };
        let is_queued = false;
        let waits = Stage::Waits { place, is_queued };
        table.insert(counter, Entry::new(enter, waits));
        Asked::New(asked)
    }

    /// An attempt that was granted without waiting.
    pub(crate) fn hold(&self, enter: &Enter, claim: Claim) -> Grant {
        let mut entry = Entry::new(enter, Stage::Leaves);
        let grant = entry.grant(claim);
        entry.stage = Stage::Holds(grant.clone());
        self.table().insert(entry.attempt.counter(), entry);
        grant
    }

    /// A waiter holds now. Says nothing to one that has left meanwhile.
    pub(crate) fn grant(&self, attempt: OwnerToken, claim: Claim) {
        let mut table = self.table();
        let Some(entry) = table.get_mut(&attempt.counter()) else {
            return;
        };
        let Stage::Waits { place, is_queued } = &entry.stage else {
            return;
        };
        let (place, is_queued) = (Place::clone(place), *is_queued);
        let grant = entry.grant(claim);
        entry.stage = Stage::Holds(grant.clone());
        entry.has_waited = is_queued;
        drop(table);
        if let Some(waker) = place.give(Ok(Some(grant))) {
            runtime::wake(waker);
        }
    }

    /// A waiter has its place in the queue, unless it was granted already.
    pub(crate) fn queue(&self, attempt: OwnerToken) {
        if let Some(entry) = self.table().get_mut(&attempt.counter())
            && let Stage::Waits { is_queued, .. } = &mut entry.stage
        {
            *is_queued = true;
        }
    }

    /// A waiter gets nothing.
    pub(crate) fn turn_away(&self, attempt: OwnerToken, answer: Result<Option<Grant>>) {
        let mut table = self.table();
        let Some(entry) = table.get(&attempt.counter()) else {
            return;
        };
        let Stage::Waits { place, .. } = &entry.stage else {
            return;
        };
        let place = Place::clone(place);
        table.remove(&attempt.counter());
        drop(table);
        if let Some(waker) = place.give(answer) {
            runtime::wake(waker);
        }
    }

    /// What an attempt holds.
    pub(crate) fn held(&self, attempt: OwnerToken) -> Option<Grant> {
        match &self.table().get(&attempt.counter())?.stage {
            Stage::Holds(grant) => Some(grant.clone()),
            Stage::Waits { .. } | Stage::Leaves | Stage::Owed => None,
        }
    }

    /// An attempt is about to end. `None`: it is over, or was never known.
    pub(crate) fn leave(&self, attempt: OwnerToken) -> Option<Leave> {
        let mut table = self.table();
        let entry = table.get_mut(&attempt.counter())?;
        // Dropped with the table left: it may hold wakers of the user's.
        let earlier = std::mem::replace(&mut entry.stage, Stage::Leaves);
        let leave = entry.leave();
        drop(table);
        drop(earlier);
        Some(leave)
    }

    /// The end of an attempt is confirmed.
    pub(crate) fn forget(&self, attempt: OwnerToken) {
        let gone = self.table().remove(&attempt.counter());
        drop(gone);
    }

    /// The end of an attempt failed.
    pub(crate) fn owe(&self, attempt: OwnerToken) {
        if let Some(entry) = self.table().get_mut(&attempt.counter())
            && matches!(entry.stage, Stage::Leaves)
        {
            entry.stage = Stage::Owed;
        }
    }

    /// A holder has lost its hold in the database.
    pub(crate) fn revoke(&self, attempt: OwnerToken) {
        let mut table = self.table();
        let validity = match table.get(&attempt.counter()).map(|entry| &entry.stage) {
            Some(Stage::Holds(grant)) => grant.validity.clone(),
            _ => return,
        };
        let gone = table.remove(&attempt.counter());
        drop(table);
        drop(gone);
        if let Some(validity) = validity {
            validity.lose(LossReason::Revoked);
        }
    }

    /// A holder became a shared one.
    pub(crate) fn downgrade(&self, attempt: OwnerToken, claim: Claim) -> Option<Grant> {
        let mut table = self.table();
        let entry = table.get_mut(&attempt.counter())?;
        let Stage::Holds(grant) = &mut entry.stage else {
            return None;
        };
        grant.fence = claim.fence;
        entry.mode = Mode::Shared;
        Some(grant.clone())
    }

    /// Ends everything here, for the database is gone: holds are lost, waiters are told.
    pub(crate) fn lose_all(&self, why: impl Fn() -> Error) {
        let table = std::mem::take(&mut *self.table());
        for entry in table.into_values() {
            match entry.stage {
                Stage::Holds(grant) => {
                    if let Some(validity) = grant.validity {
                        validity.lose(LossReason::Revoked);
                    }
                }
                Stage::Waits { place, .. } => {
                    if let Some(waker) = place.give(Err(why().with_key(&entry.key))) {
                        runtime::wake(waker);
                    }
                }
                Stage::Leaves | Stage::Owed => {}
            }
        }
    }

    /// Tells everyone who waits, and hands them over to be ended.
    pub(crate) fn drain_waiters(&self, why: impl Fn() -> Error) -> Vec<Leave> {
        let mut places = Vec::new();
        let mut drained = Vec::new();
        for entry in self.table().values_mut() {
            if let Stage::Waits { place, .. } = &entry.stage {
                places.push((Place::clone(place), entry.key.clone()));
                drained.push(entry.leave());
                entry.stage = Stage::Leaves;
            }
        }
        for (place, key) in places {
            if let Some(waker) = place.give(Err(why().with_key(&key))) {
                runtime::wake(waker);
            }
        }
        drained
    }

    /// Who is in the queue of the database.
    pub(crate) fn queued(&self) -> Vec<(OwnerToken, LockKey)> {
        self.select(|stage| {
            matches!(
                stage,
                Stage::Waits {
                    is_queued: true,
                    ..
                }
            )
        })
    }

    pub(crate) fn holding(&self) -> Vec<(OwnerToken, LockKey)> {
        self.select(|stage| matches!(stage, Stage::Holds(_)))
    }

    pub(crate) fn owed(&self) -> Vec<(OwnerToken, LockKey)> {
        self.select(|stage| matches!(stage, Stage::Owed))
    }

    fn select(&self, wanted: impl Fn(&Stage) -> bool) -> Vec<(OwnerToken, LockKey)> {
        let table = self.table();
        let selected = table.values().filter(|entry| wanted(&entry.stage));
        selected
            .map(|entry| (entry.attempt, entry.key.clone()))
            .collect()
    }

    pub(crate) fn count(&self) -> Count {
        let mut count = Count::default();
        for entry in self.table().values() {
            match entry.stage {
                Stage::Waits { .. } => count.waiting += 1,
                Stage::Holds(_) => count.holding += 1,
                Stage::Leaves => {}
                Stage::Owed => count.owed += 1,
            }
        }
        count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt that asks finds.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It has to be asked for.
    New(Place),
    /// It was asked for already.
    Before(Place),
    Holds(Grant),
    /// It was abandoned.
    Over,
}

impl Entry {
    fn new(enter: &Enter, stage: Stage) -> Self {
        Self {
            attempt: enter.request().attempt,
            key: enter.key().clone(),
            mode: enter.request().mode,
            ttl: enter.ttl(),
            has_waited: false,
            stage,
        }
    }

    fn leave(&self) -> Leave {
        Leave::new(&self.key, self.attempt, self.mode, self.has_waited)
    }

    fn grant(&self, claim: Claim) -> Grant {
        let validity = match (claim.expires, self.ttl) {
            (Some(nanos), Some(ttl)) => {
                let terms = LeaseTerms {
                    id: self.attempt,
                    ttl,
                };
                // Written by this host's clock, whoever wrote it: no offset to allow for.
                Validity::leased(terms, Instant::from_nanos(nanos))
            }
            _ => Validity::unleased(),
        };
        Grant {
            attempt: self.attempt,
            fence: claim.fence,
            validity: Some(validity),
        }
    }
}
