//! One table per process along a line of forks.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use lock_core::fork::ForkLocal;
use lock_core::{
    Change, Fence, Grant, InspectPage, InspectQuery, LockKey, Mode, OwnerToken, ProcessNonce,
    ProcessRecord, ReadVersion, Result,
};

use super::details::{Known, fence, report_alone, report_queue};
use super::name::Name;
use super::{mode_conflict, not_held, numbers_used_up};
use crate::table::{Attempt, Claim, Pass, Sought, Table};

/// Of 128 bytes each: half a megabyte in the end, which stays in a core's cache.
const SLOTS: usize = 1 << 12;

/// A key as the table finds it, and through which [`OneKey`](super::OneKey), if not 0.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) hash: u64,
    pub(super) name: Name,
    pub(super) view: u64,
}

impl Place {
    #[inline]
    pub(super) fn is(&self, name: &Name) -> bool {
        self.name == *name
    }
}

pub(super) struct SoughtName<'a> {
    place: &'a Place,
    hasher: &'a RandomState,
}

impl Sought<Name> for SoughtName<'_> {
    fn make(&self) -> Name {
        self.place.name.clone()
    }

    fn is(&self, name: &Name) -> bool {
        self.place.is(name)
    }

    fn hash_of(&self, name: &Name) -> u64 {
        name.with_text(|text| self.hasher.hash_one(text))
    }

    fn are_same(&self, one: &Name, other: &Name) -> bool {
        one == other
    }
}

#[derive(Debug)]
pub(super) struct Tables {
    per_process: ForkLocal<Table<Name, Known>>,
    closed: AtomicBool,
    hasher: RandomState,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            per_process: ForkLocal::with_value(Table::new(SLOTS)),
            closed: AtomicBool::new(false),
            hasher: RandomState::default(),
        }
    }
}

impl Tables {
    #[inline]
    pub(super) fn current(&self) -> &Table<Name, Known> {
        self.per_process.get_or_init(|| {
            let table = Table::new(SLOTS);
            if self.closed.load(Ordering::SeqCst) {
                table.close();
            }
            table
        })
    }

    /// Where a key is found.
    #[inline]
    pub(super) fn place(&self, key: &LockKey, view: u64) -> Place {
        Place {
            hash: self.hasher.hash_one(key.qualified().as_bytes()),
            name: Name::of(key),
            view,
        }
    }

    /// The same place for whoever enters.
    pub(super) fn sought<'a>(&'a self, place: &'a Place) -> SoughtName<'a> {
        let hasher = &self.hasher;
        SoughtName { place, hasher }
    }

    pub(super) fn close(&self) {
        // Before the table is looked for: whoever makes one later reads it.
        self.closed.store(true, Ordering::SeqCst);
        self.current().close();
    }

    /// Ends an attempt in any state; returns whether it was there.
    #[inline]
    pub(super) fn leave(&self, place: &Place, attempt: OwnerToken) -> bool {
        // The table knows attempts by what tells them apart within this process.
        if attempt.process() != ProcessNonce::current() {
            return false;
        }
        let (table, attempt) = (self.current(), attempt.counter());
        match table.release_attempt(place.hash, attempt) {
            Ok(was_there) => was_there,
            Err(_) => self.leave_crowded(place, attempt),
        }
    }

    #[cold]
    #[inline(never)]
    fn leave_crowded(&self, place: &Place, attempt: Attempt) -> bool {
        let claim = Claim::Attempt(attempt, None);
        self.current()
            .leave(place.hash, |name| place.is(name), claim)
    }

    /// How many hold a key through the view of the place.
    pub(super) fn holders(&self, place: &Place) -> usize {
        let counted = |known: &Known| known.came_through(place.view);
        self.current()
            .holders(place.hash, |name| place.is(name), counted)
    }

    pub(super) fn alter(
        &self,
        place: &Place,
        key: &LockKey,
        grant: &Grant,
        change: Change,
    ) -> Result<Grant> {
        let attempt = grant.attempt.counter();
        if grant.attempt.process() != ProcessNonce::current() {
            return Err(not_held(key));
        }
        let altered = self.current().alter(
            place.hash,
            |name| place.is(name),
            attempt,
            |queue, let_in| {
                if matches!(change, Change::Downgrade) {
                    let before = queue.holder_mut(attempt).map(|holder| Pass::of(holder));
                    let downgraded = queue.downgrade(attempt, |party| let_in(&mut party.data));
                    return match (downgraded, before.and_then(fence)) {
                        (Ok(Some(())), Some(Fence::Exclusive(number))) => {
                            Ok(Fence::Shared(Some(ReadVersion(number))))
                        }
                        (Err(other), _) => Err(mode_conflict(key, Mode::Shared, other)),
                        _ => Err(not_held(key)),
                    };
                }
                let holder = queue.holder_mut(attempt).ok_or_else(|| not_held(key))?;
                let known = &mut holder.data.details;
                // The table holds for whoever knows the attempt: there is nothing else to change.
                match change {
                    Change::Transfer(owner) => known.set_owner(owner),
                    Change::Detach => known.set_view(0),
                    Change::Attach { owner, .. } => {
                        known.set_view(place.view);
                        owner.into_iter().for_each(|owner| known.set_owner(owner));
                    }
                    _ => {}
                }
                match (Pass::of(holder), grant.fence) {
                    (pass, version @ Fence::Shared(_)) if pass.mode == Mode::Shared => Ok(version),
                    (pass, _) => fence(pass).ok_or_else(numbers_used_up),
                }
            },
        );
        let fence = altered.ok_or_else(|| not_held(key))??;
        Ok(Grant {
            fence,
            ..grant.clone()
        })
    }

    pub(super) fn inspect(&self, query: &InspectQuery) -> InspectPage {
        let process = ProcessRecord::current();
        let reports = std::cell::RefCell::new(Vec::new());
        let selected = |name: &Name| name.key().ok().filter(|key| query.selects(key));
        self.current().visit(
            |name, known, pass| {
                let report = selected(name).map(|key| report_alone(key, known, pass, &process));
                reports.borrow_mut().extend(report);
            },
            |name, queue| {
                let report = selected(name).map(|key| report_queue(key, queue, &process));
                reports.borrow_mut().extend(report);
            },
        );
        query.page_of(reports.into_inner())
    }
}
