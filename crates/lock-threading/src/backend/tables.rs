//! One table per process along a line of forks.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use lock_core::fork::ForkLocal;
use lock_core::{
    Change, Fence, Grant, InspectPage, InspectQuery, LockKey, Mode, OwnerToken, ProcessRecord,
    ReadVersion, Result,
};

use super::details::{Known, fence, report_alone, report_queue};
use super::name::Name;
use super::{mode_conflict, not_held, numbers_used_up};
use crate::table::{Claim, Pass, Table};

/// Of 128 bytes each: half a megabyte, which stays in a core's cache.
const SLOTS: usize = 1 << 12;

#[derive(Debug, Default)]
pub(super) struct Tables {
    per_process: ForkLocal<Table<Name, Known>>,
    closed: AtomicBool,
    hasher: RandomState,
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

    #[inline]
    pub(super) fn hash(&self, key: &LockKey) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn close(&self) {
        // Before the table is looked for: whoever makes one later reads it.
        self.closed.store(true, Ordering::SeqCst);
        self.current().close();
    }

    /// Ends an attempt in any state; returns whether it was there.
    #[inline]
    pub(super) fn leave(&self, key: &LockKey, attempt: OwnerToken) -> bool {
        let (table, hash) = (self.current(), self.hash(key));
        table
            .release_attempt(hash, attempt.counter())
            .unwrap_or_else(|_| table.leave(hash, |name| name.is(key), Claim::Attempt(attempt)))
    }

    pub(super) fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Result<Grant> {
        let (table, hash) = (self.current(), self.hash(key));
        let attempt = grant.attempt;
        let altered = table.alter(
            hash,
            |name| name.is(key),
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
                if let Change::Transfer(owner)
                | Change::Attach {
                    owner: Some(owner), ..
                } = change
                {
                    holder.data.details.set_owner(owner);
                }
                // The table holds for whoever knows the attempt: there is nothing else to change.
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
            |name, known, number| {
                let report = selected(name).map(|key| report_alone(key, known, number, &process));
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
