//! The proof that a key is held.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use lock_core::{FencingNumber, FencingToken, fork};

use super::KeyedLocks;
use crate::table::Table;

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
}

/// Where a hold is found again.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) hash: u64,
    pub(super) number: u64,
    pub(super) exclusive: bool,
    /// The fork generation it was granted in: a child's copy of the table stays as it was.
    pub(super) generation: u64,
}

impl Hold {
    fn fencing_token(self) -> Option<FencingToken> {
        let number = FencingNumber::from_base(self.number).filter(|_| self.exclusive)?;
        Some(FencingToken::new(0, number))
    }

    #[inline]
    fn end<K: Send>(self, table: &Table<K, ()>) {
        if self.generation == fork::generation() {
            table.release(self.hash, self.number);
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
        Self { locks, hold }
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
        if self.hold.generation == fork::generation() {
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
