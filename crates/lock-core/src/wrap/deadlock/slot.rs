//! Room for the one who holds exclusively, written by plain stores.

use std::panic::Location;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::place::Holder;
use crate::{Anchor, Mode, OwnerId, OwnerOrigin, OwnerToken, ProcessNonce};

/// One exclusive holder.
///
/// An uncontended acquire and release should cost next to nothing here, so it is a few plain stores
/// in, and one out where only the guard can end the hold. A reader reads the attempt before and
/// after the rest, and takes the rest for true only if it is the same: an attempt is written once.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Who can end the hold, and one more than the counter of the attempt; zero while nobody holds.
    attempt: AtomicU64,
    owner: AtomicU64,
    /// How the owner is known, and how the hold is anchored.
    nature: AtomicU64,
    process: [AtomicU64; 2],
    site: Site,
}

impl Slot {
    /// Invariant: not called again before the attempt inside was cleared, or is known to be lost.
    #[inline]
    pub(super) fn fill(&self, holder: &Holder, end: End) {
        let (origin, number) = holder.owner.parts();
        let [high, low] = halves(holder.owner.process());
        // Each store releases: who reads a part of this holder finds the slot empty, or with this
        // attempt in it, when it reads the attempt again.
        self.owner.store(number, Ordering::Release);
        let nature = nature(origin, holder.anchor);
        self.nature.store(nature, Ordering::Release);
        self.process[0].store(high, Ordering::Release);
        self.process[1].store(low, Ordering::Release);
        self.site.store(holder.site);
        self.attempt
            .store(mark(holder.attempt, end), Ordering::Release);
    }

    /// False when another attempt, or none, is in it.
    #[inline]
    pub(super) fn clear(&self, attempt: OwnerToken) -> bool {
        // The mark says who can end this very hold: if the guard alone, then we are it.
        if self.attempt.load(Ordering::Acquire) == mark(attempt, End::Guard) {
            self.attempt.store(0, Ordering::Release);
            return true;
        }
        // An exchange, because a guard and the bound on its hold may end it at the same time, and
        // the slower of the two must not clear the next holder.
        let expected = mark(attempt, End::Anyone);
        self.attempt
            .compare_exchange(expected, 0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The owner of who is in it.
    pub(super) fn owner(&self) -> Option<OwnerId> {
        loop {
            let attempt = self.attempt.load(Ordering::Acquire);
            if attempt == 0 {
                return None;
            }
            let (owner, _) = self.read_owner();
            if self.attempt.load(Ordering::Acquire) == attempt {
                return Some(owner);
            }
        }
    }

    fn read_owner(&self) -> (OwnerId, Anchor) {
        let number = self.owner.load(Ordering::Acquire);
        let (origin, anchor) = from_nature(self.nature.load(Ordering::Acquire));
        let halves = [&self.process[0], &self.process[1]];
        let halves = halves.map(|half| half.load(Ordering::Acquire));
        let owner = OwnerId::from_parts(from_halves(halves), origin, number);
        (owner, anchor)
    }

    /// Whoever is in it, given the process that all attempts in it belong to.
    pub(super) fn read(&self, process: ProcessNonce) -> Option<Holder> {
        loop {
            let attempt = self.attempt.load(Ordering::Acquire);
            let counter = (attempt & !ENDED_BY_GUARD).checked_sub(1)?;
            let (owner, anchor) = self.read_owner();
            let site = self.site.load();
            if self.attempt.load(Ordering::Acquire) == attempt {
                return Some(Holder {
                    attempt: OwnerToken::from_parts(process, counter),
                    owner,
                    mode: Mode::Exclusive,
                    anchor,
                    site,
                });
            }
        }
    }
}

fn halves(process: ProcessNonce) -> [u64; 2] {
    let bits = process.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

fn from_halves([high, low]: [u64; 2]) -> ProcessNonce {
    ProcessNonce::from_bits(u128::from(high) << 64 | u128::from(low))
}

/// Who can end a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its guard alone, on one thread at a time.
    Guard,
    /// Others too.
    Anyone,
}

/// Above every counter.
const ENDED_BY_GUARD: u64 = 1 << 63;

fn mark(attempt: OwnerToken, end: End) -> u64 {
    let end = match end {
        End::Guard => ENDED_BY_GUARD,
        End::Anyone => 0,
    };
    end | (attempt.counter() + 1)
}

fn nature(origin: OwnerOrigin, anchor: Anchor) -> u64 {
    (origin as u64) << 8 | anchor as u64
}

fn from_nature(nature: u64) -> (OwnerOrigin, Anchor) {
    let origin = match nature >> 8 {
        0 => OwnerOrigin::Explicit,
        1 => OwnerOrigin::Task,
        _ => OwnerOrigin::Thread,
    };
    let anchor = match nature & 0xff {
        0 => Anchor::None,
        1 => Anchor::Wait,
        _ => Anchor::Hold,
    };
    (origin, anchor)
}

/// A place in the source, or none.
#[derive(Debug, Default)]
struct Site(AtomicPtr<Location<'static>>);

impl Site {
    fn store(&self, site: Option<&'static Location<'static>>) {
        let pointer = site.map_or(std::ptr::null(), std::ptr::from_ref);
        self.0.store(pointer.cast_mut(), Ordering::Release);
    }

    fn load(&self) -> Option<&'static Location<'static>> {
        let pointer = self.0.load(Ordering::Acquire);
        #[expect(unsafe_code, reason = "no safe atomic holds a reference")]
        // SAFETY: null, or written by `store` from a reference that lives for ever; what it points
        // to is never written.
        unsafe {
            pointer.as_ref()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_put_in_is_read_back() {
        let slot = Slot::default();
        let process = ProcessNonce::current();
        for (owner, anchor) in [
            (OwnerId::new(), Anchor::None),
            (OwnerId::current(), Anchor::Hold),
            (
                OwnerId::from_parts(process, OwnerOrigin::Task, 7),
                Anchor::Wait,
            ),
        ] {
            let holder = Holder {
                attempt: OwnerToken::mint(),
                owner,
                mode: Mode::Exclusive,
                anchor,
                site: Some(Location::caller()),
            };
            for end in [End::Guard, End::Anyone] {
                slot.fill(&holder, end);
                assert_eq!(slot.read(process), Some(holder));
                assert!(!slot.clear(OwnerToken::mint()), "another attempt");
                assert!(slot.clear(holder.attempt));
                assert!(!slot.clear(holder.attempt), "twice");
                assert_eq!(slot.read(process), None);
            }
        }
    }
}
