//! Who holds a name and who waits for it, in this process.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use lock_core::OwnerToken;

/// How many holders are noted without a mutex. A name has one, unless it is shared.
const PLACES: usize = 4;
const FREE: u64 = 0;

/// The attempts of one name.
///
/// Holders that came without waiting are noted in places that are taken and left with one swap:
/// this is on the way of every acquire. Everybody else stands in the list.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Attempts {
    /// How long the list is, so that nobody locks an empty one. Whoever ends an attempt comes after
    /// whoever noted it, and so sees that it is not empty.
    listed: AtomicUsize,
    places: [AtomicU64; PLACES],
    list: Mutex<Vec<(OwnerToken, Stage)>>,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Held,
}

/// What a place has of an attempt: its own among those of one process, and never [`FREE`].
fn mark(attempt: OwnerToken) -> u64 {
    let process = attempt.process().to_bits();
    let mark = (process >> 64) as u64 ^ process as u64 ^ attempt.counter();
    if mark == FREE { u64::MAX } else { mark }
}

impl Attempts {
    /// Notes a holder.
    #[inline]
    pub(crate) fn hold(&self, attempt: OwnerToken) {
        let mark = mark(attempt);
        if self.has_place(mark) {
            return;
        }
        let taken = self.places.iter().any(|place| {
            place
                .compare_exchange(FREE, mark, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        });
        if !taken {
            self.attach(attempt);
        }
    }

    /// Notes a holder that may be noted already.
    pub(crate) fn attach(&self, attempt: OwnerToken) {
        if !self.has_place(mark(attempt)) {
            self.list(attempt, Stage::Held);
        }
    }

    /// Notes that an attempt must wait, which may have been noted as a holder.
    pub(crate) fn wait(&self, attempt: OwnerToken) {
        self.list(attempt, Stage::Waiting);
        // In the list before it leaves its place, so that it is seen throughout.
        self.leave_place(mark(attempt));
    }

    /// Ends an attempt; returns whether it was noted.
    #[inline]
    pub(crate) fn leave(&self, attempt: OwnerToken) -> bool {
        self.leave_place(mark(attempt)) || self.forget(&[attempt]) > 0
    }

    /// Makes those of `waited` that still wait holders, and counts them.
    pub(crate) fn settle(&self, waited: &[OwnerToken]) -> usize {
        self.with_list(|list| {
            let ours = list.iter_mut().filter(|(token, _)| waited.contains(token));
            ours.map(|entry| entry.1 = Stage::Held).count()
        })
    }

    /// Whether there may be any in the list.
    #[inline]
    pub(crate) fn has_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed) > 0
    }

    /// Takes attempts off the list, and counts those that were there.
    #[inline]
    pub(crate) fn forget(&self, attempts: &[OwnerToken]) -> usize {
        if !self.has_listed() {
            return 0;
        }
        self.with_list(|list| {
            let before = list.len();
            list.retain(|(token, _)| !attempts.contains(token));
            before - list.len()
        })
    }

    /// Ends every wait.
    pub(crate) fn refuse_waiters(&self) -> Vec<OwnerToken> {
        let waits = |entry: &mut (OwnerToken, Stage)| entry.1 == Stage::Waiting;
        self.with_list(|list| {
            list.extract_if(.., waits)
                .map(|(attempt, _)| attempt)
                .collect()
        })
    }

    /// How many hold, and how many wait.
    pub(crate) fn count(&self) -> (usize, usize) {
        let taken = |place: &&AtomicU64| place.load(Ordering::SeqCst) != FREE;
        let holds = |(_, stage): &&(OwnerToken, Stage)| *stage == Stage::Held;
        self.with_list(|list| {
            let alone = self.places.iter().filter(taken).count();
            let held = list.iter().filter(holds).count();
            (alone + held, list.len() - held)
        })
    }

    #[inline]
    fn has_place(&self, mark: u64) -> bool {
        let places = self.places.iter();
        places
            .map(|place| place.load(Ordering::Relaxed))
            .any(|found| found == mark)
    }

    #[inline]
    fn leave_place(&self, mark: u64) -> bool {
        self.places.iter().any(|place| {
            place.load(Ordering::Relaxed) == mark
                && place
                    .compare_exchange(mark, FREE, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn list(&self, attempt: OwnerToken, stage: Stage) {
        self.with_list(
            |list| match list.iter_mut().find(|(token, _)| *token == attempt) {
                Some(entry) => entry.1 = stage,
                None => list.push((attempt, stage)),
            },
        );
    }

    #[cold]
    fn with_list<T>(&self, change: impl FnOnce(&mut Vec<(OwnerToken, Stage)>) -> T) -> T {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut list);
        self.listed.store(list.len(), Ordering::Relaxed);
        result
    }
}
