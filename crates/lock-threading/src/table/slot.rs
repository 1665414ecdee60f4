//! One place for one holder, taken and left with one compare-and-swap each.
//!
//! All `unsafe` code of this crate is here and in [`slots`](super::slots).

use std::mem::{MaybeUninit, needs_drop};

use lock_core::Mode;

use crate::sync::{AtomicU64, Ordering, UnsafeCell, pause};

/// Someone is filling or emptying the slot, which takes nanoseconds and runs no code of the user.
const BUSY: u64 = 1;
/// Somebody else came: from now on the slot changes only under the mutex of its room.
const CROWDED: u64 = 2;
/// What is kept about the holder may be forgotten without a drop, so that one step leaves.
const LIGHT: u64 = 4;
/// The holder holds [`Mode::Shared`], and exclusively without this.
const SHARED: u64 = 8;
const FREE: u64 = 0;

const FLAGS: u32 = 4;
const NUMBER_BITS: u32 = 51;
const TAG_SHIFT: u32 = FLAGS + NUMBER_BITS;

/// Above every attempt.
const LET_IN: u64 = 1 << 63;

/// The largest number of a hold: as far as fencing bases reach.
pub(crate) const LAST_NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// A place for one holder.
///
/// `word` is `tag << 55 | number << 4 | flags`: the holder's number, 0 when there is none; nine bits
/// of its key's hash, which tell most other keys apart without a look; and the flags.
///
/// Invariant: `content` is initialised exactly while `number` is not 0 and `BUSY` is not set.
///
/// Invariant: `content`, and to write to `last`, belong to
/// - whoever set `BUSY`, which takes a swap from a word without `BUSY` and `CROWDED`, until it stores
///   another word;
/// - while `CROWDED` is set: whoever has the mutex of the slot's room, for no swap of the first kind
///   succeeds then. `CROWDED` is set and cleared under that mutex only, and set only while `BUSY`
///   is not.
///
/// So each access is exclusive, and the acquiring swap or lock that begins it comes after the
/// releasing store or unlock that ended the one before.
///
/// What is `LIGHT` may be forgotten: a swap to a free word ends it, without access to `content`.
///
/// Invariant: while `attempt` is marked [`LET_IN`], nobody is in the slot, that attempt holds in the
/// room, and `last` is its number. Both change under the mutex only: the mark is taken off before
/// another number is stored and when the attempt leaves, and no attempt is marked twice. So a waiter
/// that finds its own mark before and after it has read `last` has its number.
///
/// Every swap acquires. So whoever raises a flag elsewhere and then looks at a slot under the mutex
/// either sees a holder, or is seen: whoever takes or leaves the slot later finds the flag raised.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot<T> {
    word: AtomicU64,
    /// The number of the last hold of any key of this slot, here or in the room: the fencing base.
    last: AtomicU64,
    /// The attempt that holds, to be compared before the swap that leaves. Or, while nobody does, the
    /// one that was let in last by the room, under the number in `last`: marked [`LET_IN`].
    attempt: AtomicU64,
    /// How many keys of this slot are held in the room: as long as there is one, the slot stays
    /// crowded. Under the mutex only.
    behind: AtomicU64,
    content: UnsafeCell<MaybeUninit<T>>,
}

#[expect(unsafe_code, reason = "shares a cell by the protocol above")]
// SAFETY: `content` is the only part that is not `Sync` by itself. By the invariants one thread at
// a time has access to it, so values move between threads and are never shared: `T: Send` is enough.
unsafe impl<T: Send> Sync for Slot<T> {}

/// What a slot looks like to someone who has not locked anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Free,
    /// Held under this number, by this attempt if neither has changed meanwhile.
    Held {
        word: Word,
        attempt: u64,
    },
    Crowded,
}

/// What a slot looks like to a thread that decides whether to spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glimpse {
    Free,
    /// The holder seems to have our key, and to be alone with it.
    Soon,
    /// Others wait already, or another key is in the slot.
    Late,
}

/// What was in a slot, to be dropped once nothing is locked.
#[derive(Debug)]
pub(crate) struct Left<T>(Option<T>);

/// Of a slot that is held, and not crowded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    pub(super) fn tag(self) -> u64 {
        self.0 >> TAG_SHIFT
    }
}

/// How somebody holds who is alone with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner(u64);

impl Manner {
    pub(crate) const EXCLUSIVE: Self = Self(0);
    pub(crate) const SHARED: Self = Self(SHARED);

    /// `None` for permits, which a slot does not count.
    #[inline]
    pub(crate) fn of(mode: Mode) -> Option<Self> {
        match mode {
            Mode::Exclusive => Some(Self::EXCLUSIVE),
            Mode::Shared => Some(Self::SHARED),
            Mode::Permit(_) => None,
        }
    }

    /// Whether what is kept about the holder need not be dropped.
    #[inline]
    pub(crate) fn light(self, is_light: bool) -> Self {
        Self(self.0 | if is_light { LIGHT } else { 0 })
    }

    #[inline]
    pub(crate) fn mode(self) -> Mode {
        if self.0 & SHARED == 0 {
            Mode::Exclusive
        } else {
            Mode::Shared
        }
    }
}

fn held(tag: u64, number: u64, manner: Manner) -> u64 {
    tag << TAG_SHIFT | number << FLAGS | manner.0
}

fn number_of(word: u64) -> u64 {
    word >> FLAGS & LAST_NUMBER
}

impl<T> Slot<T> {
    pub(super) fn new() -> Self {
        Self::with_word(FREE)
    }

    /// Bound to the mutex of its room from the start.
    pub(super) fn crowded() -> Self {
        Self::with_word(CROWDED)
    }

    fn with_word(word: u64) -> Self {
        Self {
            word: AtomicU64::new(word),
            last: AtomicU64::new(0),
            attempt: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            content: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Takes the slot if it is free, and answers with the number of the hold. `make` runs before that.
    /// The attempt is noted only if somebody will
    /// [leave by it](super::slots::Slots::try_leave_by_attempt). What is light is not dropped.
    #[inline]
    pub(super) fn try_hold(
        &self,
        tag: u64,
        attempt: Option<u64>,
        manner: Manner,
        make: impl FnOnce() -> T,
    ) -> Option<u64> {
        // Before the swap: what is stored to make it need not have arrived when the slot is left. To
        // look first whether the slot is free would cost those who find it so more than it saves.
        let content = make();
        self.word
            .compare_exchange(FREE, BUSY, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        let number = self.last.load(Ordering::Relaxed) + 1;
        if number > LAST_NUMBER {
            self.word.store(FREE, Ordering::Release);
            return None;
        }
        self.last.store(number, Ordering::Relaxed);
        self.fill(held(tag, number, manner), attempt, content);
        Some(number)
    }

    /// Leaves the slot, unless the hold is not there, was light, or somebody else has come.
    #[inline]
    pub(super) fn try_leave(&self, tag: u64, number: u64, manner: Manner) -> Option<Left<T>> {
        self.try_leave_as(Word(held(tag, number, manner)))
    }

    /// Leaves the slot as it looked, unless it has changed.
    #[inline]
    pub(super) fn try_leave_as(&self, Word(word): Word) -> Option<Left<T>> {
        if word & LIGHT != 0 || !needs_drop::<T>() {
            let swapped =
                self.word
                    .compare_exchange(word, FREE, Ordering::AcqRel, Ordering::Relaxed);
            return swapped.is_ok().then_some(Left(None));
        }
        self.word
            .compare_exchange(word, BUSY, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        let content = self.read_out();
        self.word.store(FREE, Ordering::Release);
        Some(Left(Some(content)))
    }

    #[inline]
    pub(super) fn look(&self) -> Look {
        let mut turns = 0;
        loop {
            // Acquire: the attempt below is this holder's or a later one's.
            let word = self.word.load(Ordering::Acquire);
            if word & CROWDED != 0 {
                return Look::Crowded;
            }
            if word & BUSY == 0 {
                return match number_of(word) {
                    0 => Look::Free,
                    _ => Look::Held {
                        word: Word(word),
                        attempt: self.attempt.load(Ordering::Relaxed),
                    },
                };
            }
            pause(&mut turns);
        }
    }

    /// What a thread sees that spins for the key of `tag`.
    #[inline]
    pub(super) fn glimpse(&self, tag: u64) -> Glimpse {
        match self.word.load(Ordering::Relaxed) {
            FREE => Glimpse::Free,
            BUSY => Glimpse::Soon,
            word if word & CROWDED == 0 && word >> TAG_SHIFT == tag => Glimpse::Soon,
            _ => Glimpse::Late,
        }
    }

    /// Whether a key of another tag is alone in the slot.
    #[inline]
    pub(super) fn has_another(&self, tag: u64) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & (BUSY | CROWDED) == 0 && number_of(word) != 0 && word >> TAG_SHIFT != tag
    }

    /// Binds the slot to the mutex of its room, which the caller has.
    pub(super) fn crowd(&self) {
        let mut turns = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & CROWDED != 0 {
                return;
            }
            if word & BUSY == 0
                && self
                    .word
                    .compare_exchange(word, word | CROWDED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            pause(&mut turns);
        }
    }

    /// Sets the slot free of the mutex, unless keys of it are held in the room. Crowded, with the
    /// mutex.
    pub(super) fn leave_alone(&self) {
        if !self.has_behind() {
            let word = self.word.load(Ordering::Relaxed);
            self.word.store(word & !CROWDED, Ordering::Release);
        }
    }

    /// Whether keys of it are held in the room. With the mutex.
    pub(super) fn has_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed) != 0
    }

    /// Goes on where another slot ends, which is crowded for good from now on. Crowded, with the mutex
    /// of both.
    pub(super) fn take_over_from(&self, other: &Self) {
        debug_assert!(self.number().is_none() && other.number().is_none());
        let last = other.last.load(Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }

    pub(super) fn count_behind(&self, change: i64) {
        let behind = self.behind.load(Ordering::Relaxed);
        self.behind
            .store(behind.wrapping_add_signed(change), Ordering::Relaxed);
    }

    /// The next number. Crowded, with the mutex.
    pub(super) fn draw(&self) -> u64 {
        // Past the last number it stays there, and whoever is given it is refused.
        let number = self.last.load(Ordering::Relaxed).min(LAST_NUMBER) + 1;
        if self.number().is_none() {
            self.attempt.store(0, Ordering::Relaxed);
        }
        // Release: who sees this number sees that it belongs to nobody who was let in before.
        self.last.store(number, Ordering::Release);
        number
    }

    /// Tells who has just been let in, under the number drawn last. Crowded, with the mutex.
    pub(super) fn tell_let_in(&self, attempt: u64) {
        if self.number().is_none() {
            // Release: what the holder before did happens before what this one does.
            self.attempt.store(attempt | LET_IN, Ordering::Release);
        }
    }

    /// The attempt has left the room. Crowded, with the mutex.
    pub(super) fn forget_let_in(&self, attempt: u64) {
        if self.attempt.load(Ordering::Relaxed) == attempt | LET_IN {
            self.attempt.store(0, Ordering::Relaxed);
        }
    }

    /// The number of an attempt that was let in by the room and has not left, if it was told.
    #[inline]
    pub(super) fn let_in(&self, attempt: u64) -> Option<u64> {
        let is_it = || self.attempt.load(Ordering::Acquire) == attempt | LET_IN;
        if !is_it() {
            return None;
        }
        let number = self.last.load(Ordering::Acquire);
        // An attempt is let in once. If it is still the last one, then the number is its own.
        is_it().then_some(number)
    }

    /// The holder's number, if there is one. Crowded, with the mutex.
    pub(super) fn number(&self) -> Option<u64> {
        let number = number_of(self.word.load(Ordering::Relaxed));
        (number != 0).then_some(number)
    }

    /// How the holder holds. Crowded, with the mutex.
    pub(super) fn mode(&self) -> Mode {
        Manner(self.word.load(Ordering::Relaxed) & SHARED).mode()
    }

    /// Takes a free slot. Crowded, with the mutex.
    pub(super) fn put(
        &self,
        tag: u64,
        number: u64,
        manner: Manner,
        attempt: Option<u64>,
        content: T,
    ) {
        debug_assert!(self.number().is_none());
        self.fill(held(tag, number, manner) | CROWDED, attempt, content);
    }

    /// Takes the holder out of the slot. Crowded, with the mutex.
    pub(super) fn take(&self) -> Option<T> {
        self.number()?;
        let content = self.read_out();
        self.word.store(CROWDED, Ordering::Relaxed);
        Some(content)
    }

    /// Reads or changes what the holder keeps here. Crowded, with the mutex.
    pub(super) fn with_content<R>(&self, read: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.number()?;
        Some(self.content.with_mut(|content| {
            #[expect(unsafe_code, reason = "the protocol above")]
            // SAFETY: there is a holder, so it is initialised; the slot is crowded and the caller
            // has the mutex, so nobody else has access before `read` returns.
            read(unsafe { (*content).assume_init_mut() })
        }))
    }

    #[inline]
    fn fill(&self, word: u64, attempt: Option<u64>, content: T) {
        if let Some(attempt) = attempt {
            self.attempt.store(attempt, Ordering::Relaxed);
        }
        self.content.with_mut(|place| {
            #[expect(unsafe_code, reason = "the protocol above")]
            // SAFETY: the caller has exclusive access, and there was no holder.
            unsafe {
                write_by_words(&mut *place, content);
            }
        });
        self.word.store(word, Ordering::Release);
    }

    #[inline]
    fn read_out(&self) -> T {
        self.content.with(|place| {
            #[expect(unsafe_code, reason = "the protocol above")]
            // SAFETY: the caller has exclusive access, there is a holder, and the caller stores a
            // word without one before anybody else has access.
            unsafe {
                (*place).assume_init_read()
            }
        })
    }
}

/// Writes a value that has just been made. Read back in pieces larger than those it was made of, it
/// would have to wait until those have left the processor's store buffer.
#[inline]
fn write_by_words<T>(place: &mut MaybeUninit<T>, value: T) {
    const WORD: usize = size_of::<usize>();
    if size_of::<T>() > 8 * WORD || align_of::<T>() != align_of::<usize>() {
        place.write(value);
        return;
    }
    let value = MaybeUninit::new(value);
    let from = value.as_ptr().cast::<MaybeUninit<usize>>();
    let to = place.as_mut_ptr().cast::<MaybeUninit<usize>>();
    for at in 0..size_of::<T>() / WORD {
        #[expect(unsafe_code, reason = "copies a value in pieces")]
        // SAFETY: both are aligned, and have this many words, which may be padding. The value is not
        // used or dropped here any more. Volatile, so that words are not joined.
        unsafe {
            to.add(at).write_volatile(from.add(at).read());
        }
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // Whoever drops it has it alone.
        if self.number().is_some() {
            drop(self.read_out());
        }
    }
}
