//! Which guards share which hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::fork::ForkLocal;
use crate::{
    Change, Fence, Grant, LockKey, Mode, OwnerId, OwnerOrigin, OwnerToken, ReadVersion, Request,
    Validity,
};

/// The holds that may be acquired again. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(Arc<ForkLocal<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    /// How many attempts are counted: almost always none, and then nobody locks the table.
    attempts: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the attempt that the backend knows.
    holds: HashMap<OwnerToken, Hold>,
    by_owner: HashMap<(LockKey, OwnerId), OwnerToken>,
    /// Every guard's attempt, and the one that the backend knows.
    attempts: HashMap<OwnerToken, OwnerToken>,
}

#[derive(Debug)]
struct Hold {
    key: LockKey,
    owner: OwnerId,
    mode: Mode,
    grant: Grant,
    guards: SmallVec<[OwnerToken; 2]>,
}

/// What an acquire finds.
pub(super) enum Sharing {
    /// The owner holds it: another guard of that.
    Shared(Grant),
    /// The owner reads it, and wants to write.
    Upgrade(OwnerId),
    /// It is not the owner's.
    Nothing,
}

/// What the end of an attempt means.
pub(super) enum Ended {
    /// It is not counted.
    Unknown,
    /// Others share the hold.
    Shared,
    /// The hold goes with it.
    Last(Grant),
}

impl Holds {
    pub(super) fn share(&self, key: &LockKey, request: &Request) -> Sharing {
        let Some(owner) = stated(request) else {
            return Sharing::Nothing;
        };
        let mut table = self.table();
        let place = (key.clone(), owner);
        let Some(known) = table.by_owner.get(&place).copied() else {
            return Sharing::Nothing;
        };
        let Some(hold) = table.holds.get_mut(&known) else {
            return Sharing::Nothing;
        };
        let loss = hold.grant.validity.as_ref().and_then(Validity::peek_loss);
        if loss.is_some() {
            return Sharing::Nothing;
        }
        let fence = match (hold.mode, request.mode) {
            (Mode::Exclusive, Mode::Exclusive) | (Mode::Shared, Mode::Shared) => hold.grant.fence,
            (Mode::Exclusive, Mode::Shared) => match hold.grant.fence {
                Fence::Exclusive(number) => Fence::Shared(Some(ReadVersion(number))),
                other => other,
            },
            (Mode::Shared, Mode::Exclusive) => return Sharing::Upgrade(owner),
            _ => return Sharing::Nothing,
        };
        if !hold.guards.contains(&request.attempt) {
            hold.guards.push(request.attempt);
        }
        let validity = hold.grant.validity.clone();
        table.attempts.insert(request.attempt, known);
        self.count(&table);
        Sharing::Shared(Grant {
            attempt: request.attempt,
            fence,
            validity,
        })
    }

    /// A hold that may be shared from now on.
    pub(super) fn begin(&self, key: &LockKey, request: &Request, grant: &Grant) {
        let Some(owner) = stated(request) else {
            return;
        };
        if let Mode::Permit(_) = request.mode {
            return;
        }
        let hold = Hold {
            key: key.clone(),
            owner,
            mode: request.mode,
            grant: grant.clone(),
            guards: SmallVec::from_slice(&[grant.attempt]),
        };
        let replaced = {
            let mut table = self.table();
            let known = grant.attempt;
            table.by_owner.insert((key.clone(), owner), known);
            table.attempts.insert(known, known);
            let replaced = table.holds.insert(known, hold);
            self.count(&table);
            replaced
        };
        // The last handle on a loss signal drops callbacks of users: not under the lock.
        drop(replaced);
    }

    /// One guard less. A hold that goes with it is shared no more, and known until it is
    /// [forgotten](Self::forget).
    pub(super) fn end(&self, attempt: OwnerToken) -> Ended {
        if self.counted().attempts.load(Ordering::Acquire) == 0 {
            return Ended::Unknown;
        }
        let mut table = self.table();
        let Table {
            holds,
            by_owner,
            attempts,
        } = &mut *table;
        let Some(known) = attempts.get(&attempt).copied() else {
            // Ended before, while others share what the backend knows by its name.
            let outlived = holds.contains_key(&attempt);
            return if outlived {
                Ended::Shared
            } else {
                Ended::Unknown
            };
        };
        let Some(hold) = holds.get_mut(&known) else {
            return Ended::Unknown;
        };
        if hold.guards.len() == 1 {
            hold.leave(by_owner, known);
            return Ended::Last(hold.grant.clone());
        }
        hold.guards.retain(|guard| *guard != attempt);
        attempts.remove(&attempt);
        self.count(&table);
        Ended::Shared
    }

    /// The hold of the last guard is over, or somebody else's.
    pub(super) fn forget(&self, attempt: OwnerToken) {
        let forgotten = {
            let mut table = self.table();
            let known = table.attempts.remove(&attempt);
            let hold = known.and_then(|known| table.holds.remove(&known));
            self.count(&table);
            hold
        };
        // As in `begin`.
        drop(forgotten);
    }

    /// The backend has changed the hold of a guard; returns the guard's grant.
    pub(super) fn altered(&self, attempt: OwnerToken, grant: Grant, change: Change) -> Grant {
        if change == Change::Detach {
            self.end(attempt);
            self.forget(attempt);
            // By the name that the backend knows, for whoever attaches it.
            return grant;
        }
        let mut table = self.table();
        let Table {
            holds,
            by_owner,
            attempts,
        } = &mut *table;
        if let Some(known) = attempts.get(&attempt).copied()
            && let Some(hold) = holds.get_mut(&known)
        {
            match change {
                Change::Downgrade => hold.mode = Mode::Shared,
                Change::Transfer(owner) => {
                    hold.leave(by_owner, known);
                    hold.owner = owner;
                    if owner.origin() == OwnerOrigin::Explicit {
                        by_owner.insert((hold.key.clone(), owner), known);
                    }
                }
                Change::Detach | Change::Attach { .. } => {}
            }
            hold.grant.fence = grant.fence;
        }
        Grant { attempt, ..grant }
    }

    /// The hold of a guard that shares it with no other; `Err` with how many share it.
    pub(super) fn only(&self, attempt: OwnerToken) -> Result<Option<Grant>, usize> {
        if self.counted().attempts.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let table = self.table();
        let known = table.attempts.get(&attempt);
        match known.and_then(|known| table.holds.get(known)) {
            None => Ok(None),
            Some(hold) if hold.guards.len() == 1 => Ok(Some(hold.grant.clone())),
            Some(hold) => Err(hold.guards.len()),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let table = &self.counted().table;
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> &Counted {
        self.0.get_or_init(Counted::default)
    }

    fn count(&self, table: &Table) {
        let attempts = &self.counted().attempts;
        attempts.store(table.attempts.len(), Ordering::Release);
    }
}

impl Hold {
    /// Nobody finds it by its owner any more.
    fn leave(&self, by_owner: &mut HashMap<(LockKey, OwnerId), OwnerToken>, known: OwnerToken) {
        let place = (self.key.clone(), self.owner);
        if by_owner.get(&place) == Some(&known) {
            by_owner.remove(&place);
        }
    }
}

/// The owner, if one was stated.
fn stated(request: &Request) -> Option<OwnerId> {
    let owner = request.owner?;
    (owner.origin() == OwnerOrigin::Explicit).then_some(owner)
}
