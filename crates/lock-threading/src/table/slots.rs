//! Slots for holders that are alone, and rooms behind them for everybody else.

use super::Pass;
use super::level::Level;
pub(crate) use super::slot::{Glimpse, LAST_NUMBER, Left, Manner};
use super::slot::{Look, Slot};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// Each slot belongs to a room, by the remainder of its number.
const REMAINDERS: usize = 256;

/// How many slots there are at first, which fit the nearest cache.
pub(crate) const FIRST_SLOTS: usize = REMAINDERS;

/// How often slots may be found taken by other keys before there are more of them.
const ENOUGH: u64 = if cfg!(any(loom, shuttle)) { 1 } else { 64 };

/// Which room, by the remainder, and how many rooms there are. The first remainders have a room each.
const ROOMS: ([u8; REMAINDERS], usize) = rooms();

/// Rooms have from four to eight remainders each, so that their hash tables do not all double at the
/// same number of keys, half empty then.
const fn rooms() -> ([u8; REMAINDERS], usize) {
    const COUNT: usize = 46;
    let mut rooms = [0; REMAINDERS];
    let (mut remainder, mut turn) = (0, 0);
    while remainder < REMAINDERS {
        let (round, room) = (turn / COUNT, turn % COUNT);
        if round < 4 + room % 4 || round > 7 {
            rooms[remainder] = room as u8;
            remainder += 1;
        }
        turn += 1;
    }
    (rooms, COUNT)
}

/// Each hash has a slot; several slots share a room, with a mutex around it.
///
/// The first holder that comes takes the slot. Whoever finds the slot taken [opens](Self::open) the
/// room: the slot then changes only under the room's mutex, as long as a key of it is held there.
///
/// Few slots are quick to reach, and many seldom have two keys at a time. So there are few at first,
/// and more once it has happened often enough. Each room then [moves up](Self::move_up) by itself:
/// until it has, its slots of the new level are crowded, so that whoever tries them comes to the
/// room; from then on those of the old level are.
///
/// Invariant: at most one level's slots of a room are not crowded for good, and that is the level
/// which the room knows.
#[derive(Debug)]
pub(crate) struct Slots<T, R> {
    /// Of all levels, one after another.
    slots: Box<[Slot<T>]>,
    first: Level,
    /// The level that is tried first. Whoever sees an old one, or one where a room has not arrived,
    /// finds the slot crowded.
    level: AtomicU64,
    /// How often a slot of this level was found taken by another key.
    met: AtomicU64,
    rooms: Box<[Room<R>]>,
}

/// Padded, so that threads in different rooms do not meet.
#[derive(Debug)]
#[repr(align(128))]
struct Room<R>(Mutex<Inside<R>>);

#[derive(Debug)]
struct Inside<R> {
    /// Where its slots are.
    level: Level,
    contents: R,
}

/// Which bits of a hash say what: hash tables of the rooms use the lowest and the top seven.
const SLOT_SHIFT: u32 = 24;
const TAG_SHIFT: u32 = 46;
const TAG_MASK: u64 = (1 << 9) - 1;

impl<T: Send, R: Default> Slots<T, R> {
    /// Slots for `first` holders, a power of two and at most [`FIRST_SLOTS`], and in the end for at
    /// least `slots`.
    pub(crate) fn new(first: usize, slots: usize) -> Self {
        let slots = slots
            .clamp(1, 1 << (TAG_SHIFT - SLOT_SHIFT))
            .next_power_of_two();
        let first = Level::first(slots.min(first));
        let all = first.all_up_to(slots);
        let rooms = ROOMS.1.min(first.len());
        let inside = || Inside {
            level: first,
            contents: R::default(),
        };
        Self {
            slots: (0..all).map(|at| Slot::new(at >= first.len())).collect(),
            first,
            level: AtomicU64::new(first.to_bits()),
            met: AtomicU64::new(0),
            rooms: (0..rooms).map(|_| Room(Mutex::new(inside()))).collect(),
        }
    }

    /// Takes the slot of `hash` if it is free and nobody is in the room behind it. The number rises
    /// with every hold of the slot.
    #[inline]
    pub(crate) fn try_hold(
        &self,
        hash: u64,
        attempt: Option<u64>,
        manner: Manner,
        make: impl FnOnce() -> T,
    ) -> Option<u64> {
        self.slot(hash).try_hold(tag(hash), attempt, manner, make)
    }

    /// Leaves the slot, if this hold is there and nobody came to the room.
    #[inline]
    pub(crate) fn try_leave(&self, hash: u64, number: u64, manner: Manner) -> Option<Left<T>> {
        self.slot(hash).try_leave(tag(hash), number, manner)
    }

    /// Leaves the slot if this attempt has it, and nobody came to the room. An error means that
    /// one has to look in the room.
    #[inline]
    pub(crate) fn try_leave_by_attempt(
        &self,
        hash: u64,
        attempt: u64,
    ) -> Result<Option<Left<T>>, Crowded> {
        let (slot, tag) = (self.slot(hash), tag(hash));
        loop {
            match slot.look() {
                Look::Crowded => return Err(Crowded),
                Look::Held { word, .. } if word.tag() != tag => return Ok(None),
                Look::Free => return Ok(None),
                Look::Held {
                    word,
                    attempt: holder,
                } if holder == attempt => {
                    // If not, then somebody came or left meanwhile, and may be gone again.
                    if let Some(left) = slot.try_leave_as(word) {
                        return Ok(Some(left));
                    }
                }
                // Or it was ours when we read the word, and we have been moved to the room since, where
                // somebody else was given a number.
                Look::Held { .. } => return Err(Crowded),
            }
        }
    }

    /// The number of an attempt that waited in the room, if it was told that it has been let in.
    #[inline]
    pub(crate) fn let_in(&self, hash: u64, attempt: u64) -> Option<u64> {
        self.slot(hash).let_in(attempt)
    }

    /// What a thread sees that spins for this key.
    #[inline]
    pub(crate) fn glimpse(&self, hash: u64) -> Glimpse {
        self.slot(hash).glimpse(tag(hash))
    }

    /// Whether another key is alone in the slot of `hash`, as far as one can see.
    #[inline]
    pub(crate) fn has_another(&self, hash: u64) -> bool {
        self.slot(hash).has_another(tag(hash))
    }

    /// Opens the room behind the slot of `hash`.
    #[inline(always)]
    pub(crate) fn open(&self, hash: u64) -> Open<'_, T, R> {
        let room = lock(&self.rooms[room_of(self.first.index(number(hash)))].0);
        let slot = &self.slots[room.level.index(number(hash))];
        slot.crowd();
        Open {
            tag: tag(hash),
            slot,
            room,
        }
    }

    /// Visits every room, and before it every holder in a slot of it, with what it got.
    pub(crate) fn visit(&self, mut holder: impl FnMut(&mut T, Pass), mut room: impl FnMut(&mut R)) {
        for (at, each) in self.rooms.iter().enumerate() {
            let mut inside = lock(&each.0);
            for slot in self.slots_of(at, inside.level) {
                if slot.look() == Look::Free {
                    continue;
                }
                slot.crowd();
                let pass = Pass::alone(slot.number().unwrap_or(0), slot.mode());
                slot.with_content(|content| holder(content, pass));
                slot.leave_alone();
            }
            room(&mut inside.contents);
        }
    }

    /// A new key has come to an opened slot. If there is often another one, there are more slots.
    pub(crate) fn note_newcomer(&self, Front(slot): &Front<'_, T>) {
        if slot.number().is_none() && !slot.has_behind() {
            return;
        }
        let level = self.level();
        let Some(next) = level.next(self.slots.len()) else {
            return;
        };
        if self.met.fetch_add(1, Ordering::Relaxed) + 1 < ENOUGH {
            return;
        }
        let (old, new) = (level.to_bits(), next.to_bits());
        let is_first = self
            .level
            .compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
        if is_first.is_ok() {
            self.met.store(0, Ordering::Relaxed);
        }
    }

    /// Whether an opened room has not arrived at the level that is tried first.
    #[inline]
    pub(crate) fn is_left_behind(&self, open: &Open<'_, T, R>) -> bool {
        open.room.level != self.level()
    }

    /// Moves a room, which was opened for `hash`, to the level that is tried first.
    ///
    /// `empty` takes the holder out of the opened slot, if there is one, into the room; `crowding`
    /// tells the hash of each entry there that keeps its slot crowded.
    pub(crate) fn move_up<'a>(
        &'a self,
        hash: u64,
        open: &mut Open<'a, T, R>,
        mut empty: impl FnMut(&mut Open<'a, T, R>),
        crowding: impl Fn(&R, &mut dyn FnMut(u64)),
    ) {
        let room = room_of(self.first.index(number(hash)));
        while self.is_left_behind(open) {
            let level = open.room.level;
            let Some(next) = level.next(self.slots.len()) else {
                return;
            };
            // If a key panics while it is compared, then the room stays here, and some of its slots
            // are crowded until somebody opens them.
            for slot in self.slots_of(room, level) {
                slot.crowd();
                open.slot = slot;
                empty(open);
            }
            // From here on nothing of users runs.
            for at in self.numbers_of(room, next) {
                let old = &self.slots[level.index(at)];
                self.slots[next.index(at)].take_over_from(old);
            }
            crowding(&open.room.contents, &mut |hash| {
                self.slots[next.index(number(hash))].count_behind(1);
            });
            self.slots_of(room, next).for_each(Slot::leave_alone);
            open.room.level = next;
            open.slot = &self.slots[next.index(number(hash))];
            open.slot.crowd();
        }
    }

    /// The slots of a room.
    fn slots_of(&self, room: usize, level: Level) -> impl Iterator<Item = &Slot<T>> {
        let numbers = self.numbers_of(room, level);
        numbers.map(move |number| &self.slots[level.index(number)])
    }

    fn numbers_of(&self, room: usize, level: Level) -> impl Iterator<Item = usize> + use<T, R> {
        let step = self.first.len();
        let own = (0..step).filter(move |remainder| room_of(*remainder) == room);
        own.flat_map(move |first| (first..level.len()).step_by(step))
    }

    #[inline]
    fn slot(&self, hash: u64) -> &Slot<T> {
        &self.slots[self.level().index(number(hash))]
    }

    #[inline]
    fn level(&self) -> Level {
        Level::from_bits(self.level.load(Ordering::Relaxed))
    }
}

/// What the number of a hash's slot is the remainder of, at every level.
#[inline]
fn number(hash: u64) -> usize {
    (hash >> SLOT_SHIFT) as usize
}

fn room_of(slot: usize) -> usize {
    ROOMS.0[slot % REMAINDERS].into()
}

/// The slot cannot be left alone, or does not tell: look in the room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowded;

fn tag(hash: u64) -> u64 {
    hash >> TAG_SHIFT & TAG_MASK
}

/// A slot with the room behind it, both ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Open<'a, T, R> {
    tag: u64,
    slot: &'a Slot<T>,
    room: MutexGuard<'a, Inside<R>>,
}

/// The slot as the room behind it sees it.
#[derive(Debug)]
pub(crate) struct Front<'a, T>(&'a Slot<T>);

impl<T> Front<'_, T> {
    /// What the slot's holder got, if there is one.
    fn holder(&self) -> Option<Pass> {
        let number = self.0.number()?;
        Some(Pass::alone(number, self.0.mode()))
    }

    /// Looks at the slot's holder.
    pub(crate) fn with_holder<S>(&self, look: impl FnOnce(&mut T) -> S) -> Option<S> {
        self.0.with_content(look)
    }

    /// Takes the holder out of the slot.
    pub(crate) fn take(&self) -> Option<(Pass, T)> {
        Some((self.holder()?, self.0.take()?))
    }

    /// The number of a new hold.
    pub(crate) fn draw(&self) -> u64 {
        self.0.draw()
    }

    /// The number of an exclusive waiter that is let in, which can see so without the mutex.
    pub(crate) fn let_in(&self, attempt: u64) -> u64 {
        let number = self.0.draw();
        self.0.tell_let_in(attempt);
        number
    }

    /// Whoever may have been let in has left.
    pub(crate) fn forget_let_in(&self, attempt: u64) {
        self.0.forget_let_in(attempt);
    }

    /// Whether an entry of the room keeps the slot crowded may have changed.
    pub(crate) fn note(&self, before: bool, now: bool) {
        self.0.count_behind(i64::from(now) - i64::from(before));
    }
}

impl<T, R> Open<'_, T, R> {
    /// What the slot's holder got, if there is one.
    pub(crate) fn holder(&self) -> Option<Pass> {
        self.front().holder()
    }

    /// Looks at the slot's holder.
    pub(crate) fn with_holder<S>(&self, look: impl FnOnce(&mut T) -> S) -> Option<S> {
        self.front().with_holder(look)
    }

    /// Takes the slot, which has no holder, unless the numbers are used up.
    pub(crate) fn put(&self, manner: Manner, attempt: Option<u64>, content: T) -> Option<u64> {
        let number = self.slot.draw();
        if number > LAST_NUMBER {
            return None;
        }
        self.slot.put(self.tag, number, manner, attempt, content);
        Some(number)
    }

    /// Takes the holder out of the slot.
    pub(crate) fn take(&self) -> Option<(Pass, T)> {
        self.front().take()
    }

    /// The room, and the slot as it sees it.
    pub(crate) fn room(&mut self) -> (&mut R, Front<'_, T>) {
        (&mut self.room.contents, Front(self.slot))
    }

    fn front(&self) -> Front<'_, T> {
        Front(self.slot)
    }
}

impl<T, R> Drop for Open<'_, T, R> {
    fn drop(&mut self) {
        // Before the mutex, which is dropped with the fields.
        self.slot.leave_alone();
    }
}
