//! The first page of a lock file, which the processes that use the key share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::record::words;

/// The first page of a lock file.
///
/// The state of a key has two places, written in turn: a body for people and a head for programs,
/// each with a checksum. The heads stand side by side around the bells, so that one short read finds
/// all that an acquire has to know, and one write changes a place.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Page {
    even_body: [AtomicU64; 248],
    even_head: [AtomicU64; 8],
    pub(crate) bells: Bells,
    odd_head: [AtomicU64; 8],
    odd_body: [AtomicU64; 240],
}

pub(crate) const PAGE_LEN: usize = 4096;
const _: () = assert!(size_of::<Page>() == PAGE_LEN);

/// Where the even head is, and after it the bells and the odd head.
pub(crate) const DOOR_AT: usize = 1984;
pub(crate) const DOOR_LEN: usize = 192;
pub(crate) const HEAD_LEN: usize = 64;
pub(crate) const BELLS_AT: usize = DOOR_AT + HEAD_LEN;
const ODD_HEAD_AT: usize = BELLS_AT + HEAD_LEN;
/// What fits beside the heads; longer bodies stand behind the page.
const BODY_ROOM: usize = 1920;
/// The most that a body may take behind the page.
pub(crate) const MAX_BODY_LEN: usize = 8192;

/// Where a place is within a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceAt {
    pub(crate) head: usize,
    pub(crate) body: usize,
}

impl PlaceAt {
    /// The place of the write of this number, with a body of `len` bytes.
    pub(crate) fn of(sequence: u64, len: usize) -> Self {
        let odd = sequence % 2 == 1;
        let head = if odd { ODD_HEAD_AT } else { DOOR_AT };
        let body = match (len <= BODY_ROOM, odd) {
            // Up to its head, which follows.
            (true, false) => DOOR_AT - len.next_multiple_of(8),
            (true, true) => ODD_HEAD_AT + HEAD_LEN,
            (false, false) => PAGE_LEN,
            (false, true) => PAGE_LEN + MAX_BODY_LEN,
        };
        Self { head, body }
    }

    /// Whether head and body are one stretch of the page.
    pub(crate) fn is_in_page(self) -> bool {
        self.body < PAGE_LEN
    }
}

impl Page {
    /// Copies the door: both heads and the bells between them.
    pub(crate) fn door(&self) -> [u8; DOOR_LEN] {
        let mut door = [0; DOOR_LEN];
        copy_out(&self.even_head, &mut door[..HEAD_LEN]);
        copy_out(&self.odd_head, &mut door[2 * HEAD_LEN..]);
        door
    }

    /// Writes a place. The caller has the kernel lock of the file exclusively; whoever reads
    /// meanwhile finds a checksum that does not fit.
    pub(crate) fn write(&self, sequence: u64, head: &[u8; HEAD_LEN], body: &[u8]) {
        let len = body.len().div_ceil(8);
        if sequence % 2 == 1 {
            copy_in(body, &self.odd_body[..len]);
            copy_in(head, &self.odd_head);
        } else {
            let from = self.even_body.len() - len;
            copy_in(body, &self.even_body[from..]);
            copy_in(head, &self.even_head);
        }
    }
}

fn copy_out(from: &[AtomicU64], to: &mut [u8]) {
    for (word, bytes) in from.iter().zip(to.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
}

fn copy_in(from: &[u8], to: &[AtomicU64]) {
    for (bytes, word) in words(from).zip(to) {
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// What tells processes that something was given back.
///
/// There are two: one for the process that is next, which waits for the lock, and one for the
/// others, which wait for their turn to be next. Whoever waits says so *before* it asks, and
/// whoever gives back looks *after* it has, so that no wake-up is lost.
///
/// A thread sleeps on the word of a bell: its lowest bit says that somebody does, the rest counts.
/// A task listens for a write to the bell's file.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Bells {
    words: [AtomicU32; 2],
    listened: [AtomicU32; 2],
    /// Somebody is next: nobody else may enter. Stale when its process died.
    next: AtomicU32,
    _rest: [AtomicU32; 11],
}

/// One of the two bells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bell {
    Lock,
    Turn,
}

/// Offsets for those who have no map.
pub(crate) const NEXT_AT: usize = BELLS_AT + 16;
/// A byte that is written so that listeners hear of it.
pub(crate) const RING_AT: usize = BELLS_AT + 63;

impl Bell {
    pub(crate) fn word_at(self) -> usize {
        BELLS_AT + 4 * self as usize
    }

    pub(crate) fn listened_at(self) -> usize {
        BELLS_AT + 8 + 4 * self as usize
    }
}

pub(crate) const SOMEBODY_SLEEPS: u32 = 1;
const ONE_RING: u32 = 2;

impl Bells {
    pub(crate) fn word(&self, bell: Bell) -> &AtomicU32 {
        &self.words[bell as usize]
    }

    /// Says that a thread is going to sleep. It may, while the word is what this returns.
    pub(crate) fn will_sleep(&self, bell: Bell) -> u32 {
        self.word(bell).fetch_or(SOMEBODY_SLEEPS, Ordering::SeqCst) | SOMEBODY_SLEEPS
    }

    pub(crate) fn will_listen(&self, bell: Bell) {
        self.listened[bell as usize].store(1, Ordering::SeqCst);
    }

    pub(crate) fn somebody_is_next(&self) -> bool {
        self.next.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn set_next(&self, next: bool) {
        self.next.store(next.into(), Ordering::SeqCst);
    }

    /// Wakes who sleeps. Returns whether somebody listens, who has to be told by a write.
    pub(crate) fn ring(&self, bell: Bell) -> bool {
        let word = self.word(bell);
        if word.load(Ordering::SeqCst) & SOMEBODY_SLEEPS != 0 {
            match bell {
                Bell::Lock => self.wake_all(bell),
                // In the order in which they came, so that processes take turns.
                Bell::Turn => self.wake_first(bell),
            }
        }
        let listened = &self.listened[bell as usize];
        listened.load(Ordering::SeqCst) != 0 && listened.swap(0, Ordering::SeqCst) != 0
    }

    pub(crate) fn wake_all(&self, bell: Bell) {
        let word = self.word(bell);
        let rung = |word: u32| Some((word & !SOMEBODY_SLEEPS).wrapping_add(ONE_RING));
        // Whoever has read the word before sleeps no more, or not at all.
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, rung);
        futex::wake(word, i32::MAX as u32);
    }

    fn wake_first(&self, bell: Bell) {
        let word = self.word(bell);
        let now = word
            .fetch_add(ONE_RING, Ordering::SeqCst)
            .wrapping_add(ONE_RING);
        if futex::wake(word, 1) == 0 {
            let nobody = now & !SOMEBODY_SLEEPS;
            let _ = word.compare_exchange(now, nobody, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod futex {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags, Timespec};

    /// Wakes so many at most, and says how many. Not private: the word is shared by processes.
    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        futex::wake(word, Flags::empty(), count).unwrap_or(0)
    }

    /// Sleeps while the word is `expected`, for `limit` at most. Returns early for no reason.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, limit: Duration) {
        let limit = Timespec {
            tv_sec: limit.as_secs().min(3600) as _,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let _ = futex::wait(word, Flags::empty(), expected, Some(&limit));
    }
}

/// Elsewhere nothing is mapped, and nobody sleeps on a word.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) mod futex {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    pub(crate) fn wake(_word: &AtomicU32, _count: u32) -> usize {
        0
    }

    pub(crate) fn wait(_word: &AtomicU32, _expected: u32, limit: Duration) {
        std::thread::sleep(limit);
    }
}
