//! A pending acquire of a key.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use lock_core::{Error, ErrorKind, Mode, Result, block_on, runtime};
use tokio::task::coop;

use super::asking::{Asking, Plain, hold_alone};
use super::guard::Hold;
use super::{KeyGuard, KeyOptions};
use crate::table::{Glimpse, Manner, Refused};

/// Waits until a key is held exclusively. Made by [`KeyedLocks::acquire`](super::KeyedLocks::acquire).
///
/// # Cancel safety
/// Dropping it at any point leaves no lock and no queue entry.
#[must_use = "an acquire does nothing unless it is awaited or waited for"]
pub struct AcquireKey<'a, 'k, K: Send, Q: ?Sized, S>(Asking<'a, 'k, K, Q, S, Plain>)
where
    K: Borrow<Q>,
    Q: Eq;

/// Waits until a key is held in some mode. Made by
/// [`KeyedLocks::acquire_with`](super::KeyedLocks::acquire_with).
///
/// # Cancel safety
/// Dropping it at any point leaves no lock and no queue entry.
#[must_use = "an acquire does nothing unless it is awaited or waited for"]
pub struct AcquireKeyWith<'a, 'k, K: Send, Q: ?Sized, S>(Asking<'a, 'k, K, Q, S, KeyOptions>)
where
    K: Borrow<Q>,
    Q: Eq;

impl<'a, 'k, K, Q, S> AcquireKey<'a, 'k, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    #[inline]
    pub(super) fn new(asking: Asking<'a, 'k, K, Q, S, Plain>) -> Self {
        Self(asking)
    }

    /// Waits on the calling thread instead of a task.
    ///
    /// # Blocking
    /// Parks the thread. Do not call it on a thread that runs async tasks.
    ///
    /// # Panics
    /// When it would park the lock I/O thread, in a waker or callback that runs there.
    #[inline(always)]
    pub fn wait(self) -> KeyGuard<'a, K> {
        let (table, hash) = (self.0.locks.table(), self.0.hash());
        match hold_alone(table, hash, self.0.key, Manner::EXCLUSIVE) {
            Some(number) => {
                // It has not queued, so there is nothing to end.
                std::mem::forget(self);
                KeyGuard::new(table, Hold::exclusive(hash, number))
            }
            None => self
                .0
                .wait_crowded(table, hash)
                .unwrap_or_else(|_| unreachable!("exclusive takes turns with every mode")),
        }
    }

    /// Waits on the calling thread, at most `limit`; `None` when the key was not free in time.
    ///
    /// # Blocking
    /// Parks the thread as long as `limit` allows. Do not call it on a thread that runs async tasks.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn wait_for(self, limit: Duration) -> Option<KeyGuard<'a, K>> {
        if let Some(guard) = self.0.try_now() {
            return Some(guard);
        }
        if limit.is_zero() {
            return None;
        }
        block_on(async {
            let mut acquire = pin!(self);
            let mut timer = pin!(runtime::sleep(limit));
            std::future::poll_fn(|context| {
                if let Poll::Ready(guard) = acquire.as_mut().poll(context) {
                    return Poll::Ready(Some(guard));
                }
                timer.as_mut().poll(context).map(|()| None)
            })
            .await
        })
    }
}

impl<'a, 'k, K, Q, S> AcquireKeyWith<'a, 'k, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    pub(super) fn new(asking: Asking<'a, 'k, K, Q, S, KeyOptions>) -> Self {
        Self(asking)
    }

    /// Waits on the calling thread instead of a task.
    ///
    /// # Errors
    /// `ModeConflict` when a mode is held or waited for that never takes turns with this one.
    ///
    /// # Blocking
    /// As [`AcquireKey::wait`].
    #[inline]
    pub fn wait(self) -> Result<KeyGuard<'a, K>> {
        let mode = self.0.options.mode;
        let (table, hash) = (self.0.locks.table(), self.0.hash());
        if let Some(guard) = self.0.hold_slot(table, hash) {
            return Ok(guard);
        }
        let waited = self.0.wait_crowded(table, hash);
        waited.map_err(|refused| refusal(mode, refused))
    }
}

fn refusal(wanted: Mode, refused: Refused) -> Error {
    match refused {
        Refused::Conflict(other) => Error::new(
            ErrorKind::ModeConflict,
            format!("asked for {wanted} while {other} is held or waited for; use one mode per key"),
        ),
        Refused::Closed => Error::closed("keyed"),
    }
}

impl<'a, 'k, K, Q, S> Future for AcquireKey<'a, 'k, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    type Output = KeyGuard<'a, K>;

    /// Inlined, so that the future and the guard are made where they stay: to move them costs as much
    /// as to look the key up.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = if self.0.queued.is_none() {
            // A task that never has to wait must let others of its thread run all the same.
            let budget = std::task::ready!(coop::poll_proceed(context));
            let (table, hash) = (self.0.locks.table(), self.0.hash());
            // A look first: a task that finds the key taken queues, and would have copied it in vain.
            if table.glimpse(hash) == Glimpse::Free
                && let Some(number) = hold_alone(table, hash, self.0.key, Manner::EXCLUSIVE)
            {
                budget.made_progress();
                return Poll::Ready(KeyGuard::new(table, Hold::exclusive(hash, number)));
            }
            let fairness = self.0.locks.tasks;
            self.0
                .enter_or_queue(table, hash, fairness, context.waker())
        } else {
            self.0.poll_queued(context.waker())
        };
        answer.map(|answer| match answer {
            Ok(guard) => guard,
            Err(_) => unreachable!("exclusive takes turns with every mode"),
        })
    }
}

impl<'a, 'k, K, Q, S> Future for AcquireKeyWith<'a, 'k, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    type Output = Result<KeyGuard<'a, K>>;

    /// # Errors
    /// As [`AcquireKeyWith::wait`].
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mode = self.0.options.mode;
        self.0
            .poll(context)
            .map_err(|refused| refusal(mode, refused))
    }
}

impl<K, Q, S> fmt::Debug for AcquireKey<'_, '_, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Eq + ?Sized,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.stage())
    }
}

impl<K, Q, S> fmt::Debug for AcquireKeyWith<'_, '_, K, Q, S>
where
    K: Borrow<Q> + Send,
    Q: Eq + ?Sized,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.stage())
    }
}
