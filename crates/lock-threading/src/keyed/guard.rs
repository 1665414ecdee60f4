//! The proof that a key is held.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use lock_core::{FencingNumber, FencingToken, Mode, fork};

use super::KeyedLocks;
use crate::table::{Manner, Pass, Table};

/// The proof that a key is held. Dropping it releases, also on a panic.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct KeyGuard<'a, K: Send> {
    table: &'a Table<K, ()>,
    hold: Hold,
}

/// A [`KeyGuard`] that keeps the locks alive.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct OwnedKeyGuard<K: Send, S> {
    locks: Arc<KeyedLocks<K, S>>,
    hold: Hold,
    /// The fork generation it was granted in: the locks have another table in a child.
    generation: u64,
}

/// Where a hold is found again. Small, for it is moved as often as the guard.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    hash: u64,
    /// The number, and in the top bits the marks.
    marked: u64,
}

/// Shared, or a permit. The marks are above every number.
const NOT_EXCLUSIVE: u64 = 1 << 63;
/// Granted by the room, so most likely not in the slot.
const IN_ROOM: u64 = 1 << 62;

impl Hold {
    #[inline]
    pub(super) fn exclusive(hash: u64, number: u64) -> Self {
        let marked = number;
        Self { hash, marked }
    }

    pub(super) fn of(hash: u64, pass: Pass) -> Self {
        let mark = match pass.mode {
            Mode::Exclusive => 0,
            Mode::Shared | Mode::Permit(_) => NOT_EXCLUSIVE,
        };
        let marked = pass.number | mark;
        Self { hash, marked }
    }

    pub(super) fn in_room(hash: u64, pass: Pass) -> Self {
        let Self { hash, marked } = Self::of(hash, pass);
        let marked = marked | IN_ROOM;
        Self { hash, marked }
    }

    fn number(self) -> u64 {
        self.marked & !(NOT_EXCLUSIVE | IN_ROOM)
    }

    #[inline]
    fn fencing_token(self) -> Option<FencingToken> {
        if self.marked & NOT_EXCLUSIVE != 0 {
            return None;
        }
        let number = FencingNumber::from_base(self.number())?;
        Some(FencingToken::new(0, number))
    }

    #[inline]
    fn end<K: Send>(self, table: &Table<K, ()>) {
        if self.marked & (NOT_EXCLUSIVE | IN_ROOM) == 0 {
            table.release(self.hash, self.marked, Manner::EXCLUSIVE);
        } else if self.marked & IN_ROOM == 0 {
            table.release(self.hash, self.number(), Manner::SHARED);
        } else {
            table.release_crowded(self.hash, self.number());
        }
    }
}

impl<'a, K: Send> KeyGuard<'a, K> {
    #[inline]
    pub(super) fn new(table: &'a Table<K, ()>, hold: Hold) -> Self {
        Self { table, hold }
    }

    /// What the protected resource can check: it rises with every exclusive hold of the key, for as
    /// long as the locks live. Only exclusive holders have one.
    #[inline]
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.hold.fencing_token()
    }
}

impl<K: Send, S> OwnedKeyGuard<K, S> {
    pub(super) fn new(locks: Arc<KeyedLocks<K, S>>, guard: KeyGuard<'_, K>) -> Self {
        let hold = ManuallyDrop::new(guard).hold;
        Self {
            locks,
            hold,
            generation: fork::generation(),
        }
    }

    /// As [`KeyGuard::fencing_token`].
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.hold.fencing_token()
    }
}

impl<K: Send> Drop for KeyGuard<'_, K> {
    #[inline]
    fn drop(&mut self) {
        self.hold.end(self.table);
    }
}

impl<K: Send, S> Drop for OwnedKeyGuard<K, S> {
    fn drop(&mut self) {
        if self.generation == fork::generation() {
            self.hold.end(self.locks.table());
        }
    }
}

impl<K: Send> fmt::Debug for KeyGuard<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyGuard")
            .field("fencing_token", &self.fencing_token())
            .finish_non_exhaustive()
    }
}

impl<K: Send, S> fmt::Debug for OwnedKeyGuard<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedKeyGuard")
            .field("fencing_token", &self.fencing_token())
            .finish_non_exhaustive()
    }
}
