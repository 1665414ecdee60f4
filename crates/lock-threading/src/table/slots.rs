//! Slots for holders that are alone, and rooms behind them for everybody else.

use super::Pass;
pub(crate) use super::slot::{Glimpse, LAST_NUMBER, Left, Manner};
use super::slot::{Look, Slot};
use crate::sync::{AtomicU64, Mutex, MutexGuard, OnceBox, Ordering, lock};

/// Each slot belongs to a room, by the remainder of its number.
const REMAINDERS: usize = 256;

/// How many slots there are at first, which fit the nearest cache.
pub(crate) const FIRST_SLOTS: usize = REMAINDERS;

/// How often newcomers meet another key before there are more slots. Not often, for where two threads
/// meet once, they have taken cache lines from each other a thousand times.
const ENOUGH: u64 = if cfg!(any(loom, shuttle)) { 1 } else { 2 };

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
/// and many once newcomers have met other keys often enough. Each room then [moves](Self::move_room)
/// by itself: until it has, its slots among the many are crowded, so that whoever tries them comes to
/// the room; from then on those among the few are, for good.
///
/// Invariant: a slot among the many is not free, nor held, before the slots of its room among the few
/// are crowded for good, with nobody in them. So whichever of its two slots somebody tries for a hash,
/// it is the one where holders are, or crowded.
#[derive(Debug)]
pub(crate) struct Slots<T, R> {
    few: Box<[Slot<T>]>,
    /// Tried from when it is there.
    many: OnceBox<Many<T>>,
    /// How many that is.
    most: usize,
    /// How often a newcomer has met another key.
    met: AtomicU64,
    rooms: Box<[Room<R>]>,
}

/// Padded, for everybody looks at it each time.
#[derive(Debug)]
#[repr(align(128))]
struct Many<T>(Box<[Slot<T>]>);

/// Padded, so that threads in different rooms do not meet.
#[derive(Debug)]
#[repr(align(128))]
struct Room<R>(Mutex<Inside<R>>);

#[derive(Debug)]
struct Inside<R> {
    /// Its slots are among the many.
    has_moved: bool,
    contents: R,
}

/// Which bits of a hash say what: hash tables of the rooms use the lowest and the top seven.
const SLOT_SHIFT: u32 = 24;
const TAG_SHIFT: u32 = 46;
const TAG_MASK: u64 = (1 << 9) - 1;

impl<T: Send, R: Default> Slots<T, R> {
    /// Slots for at least `few` holders at first, at most [`REMAINDERS`], and for at least `most` once
    /// they are needed; each rounded up to a power of two.
    pub(crate) fn new(few: usize, most: usize) -> Self {
        let most = most
            .clamp(1, 1 << (TAG_SHIFT - SLOT_SHIFT))
            .next_power_of_two();
        let few = few.next_power_of_two().min(most);
        let rooms = (0..ROOMS.1.min(few)).map(|_| {
            Room(Mutex::new(Inside {
                has_moved: false,
                contents: R::default(),
            }))
        });
        Self {
            few: (0..few).map(|_| Slot::new()).collect(),
            many: OnceBox::new(),
            most,
            met: AtomicU64::new(0),
            rooms: rooms.collect(),
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
        let number = number(hash);
        let room = lock(&self.rooms[room_of(number & (self.few.len() - 1))].0);
        let slot = slot_of(self.slots(&room), number);
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
            for slot in self.slots_of(at, self.slots(&inside)) {
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

    /// A new key has come to an opened slot. Counts whether it meets another one there.
    pub(crate) fn note_newcomer(&self, Front(slot): &Front<'_, T>) {
        let meets = slot.number().is_some() || slot.has_behind();
        if meets && self.may_grow() {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes many slots, if newcomers have met other keys often enough. With nothing locked, for it
    /// takes a while.
    #[inline]
    pub(crate) fn grow_if_needed(&self) {
        if self.may_grow() && self.met.load(Ordering::Relaxed) >= ENOUGH {
            let many = || Box::new(Many((0..self.most).map(|_| Slot::crowded()).collect()));
            self.many.get_or_init(many);
        }
    }

    #[inline]
    fn may_grow(&self) -> bool {
        self.many.get().is_none() && self.few.len() < self.most
    }

    /// Whether there are many slots, and an opened room has not moved there.
    #[inline]
    pub(crate) fn is_left_behind(&self, open: &Open<'_, T, R>) -> bool {
        !open.room.has_moved && self.many.get().is_some()
    }

    /// Moves a room, which was opened for `hash`, to its slots among the many.
    ///
    /// `empty` takes the holder out of the opened slot, if there is one, into the room; `crowding`
    /// tells the hash of each entry there that keeps its slot crowded.
    pub(crate) fn move_room<'a>(
        &'a self,
        hash: u64,
        open: &mut Open<'a, T, R>,
        mut empty: impl FnMut(&mut Open<'a, T, R>),
        crowding: impl Fn(&R, &mut dyn FnMut(u64)),
    ) {
        let Some(Many(many)) = self.many.get() else {
            return;
        };
        let room = room_of(number(hash) & (self.few.len() - 1));
        // If a key panics while it is hashed or compared, then the room stays here, and some of its
        // slots are crowded until somebody opens them.
        for slot in self.slots_of(room, &self.few) {
            slot.crowd();
            open.slot = slot;
            empty(open);
        }
        // From here on nothing of users runs.
        for number in self.numbers_of(room, many.len()) {
            slot_of(many, number).take_over_from(slot_of(&self.few, number));
        }
        crowding(&open.room.contents, &mut |hash| {
            slot_of(many, number(hash)).count_behind(1);
        });
        self.slots_of(room, many).for_each(Slot::leave_alone);
        open.room.has_moved = true;
        open.slot = slot_of(many, number(hash));
        open.slot.crowd();
    }

    /// Those where the holders of a room are.
    #[inline]
    fn slots(&self, room: &Inside<R>) -> &[Slot<T>] {
        match self.many.get() {
            Some(Many(many)) if room.has_moved => many,
            _ => &self.few,
        }
    }

    /// The slots of a room, among these.
    fn slots_of<'a>(
        &self,
        room: usize,
        slots: &'a [Slot<T>],
    ) -> impl Iterator<Item = &'a Slot<T>> + use<'a, T, R> {
        let numbers = self.numbers_of(room, slots.len());
        numbers.map(move |number| &slots[number])
    }

    fn numbers_of(&self, room: usize, len: usize) -> impl Iterator<Item = usize> + use<T, R> {
        let step = self.few.len();
        let own = (0..step).filter(move |remainder| room_of(*remainder) == room);
        own.flat_map(move |first| (first..len).step_by(step))
    }

    #[inline]
    fn slot(&self, hash: u64) -> &Slot<T> {
        let slots = self.many.get().map_or(&self.few, |Many(many)| many);
        slot_of(slots, number(hash))
    }
}

/// What the number of a slot is the remainder of, however many there are.
#[inline]
fn number(hash: u64) -> usize {
    (hash >> SLOT_SHIFT) as usize
}

#[inline]
fn slot_of<T>(slots: &[Slot<T>], number: usize) -> &Slot<T> {
    &slots[number & (slots.len() - 1)]
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
