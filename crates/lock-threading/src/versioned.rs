//! A value with versions: readers never block, one writer at a time.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use lock_core::{Error, ErrorKind, FencingToken, Lock, LockGuard, Result};

/// A value whose readers take a consistent snapshot without ever blocking, while one writer at a
/// time prepares the next version under a lock.
///
/// Multi-version concurrency control in its smallest form: what a reader holds never changes, and a
/// version appears whole or not at all. Share it in an `Arc`; use one lock per value.
///
/// ```
/// use std::sync::Arc;
/// use lock_core::{Lock, LockKey};
/// use lock_threading::{ThreadingBackend, Versioned};
///
/// let lock = Lock::new(Arc::new(ThreadingBackend::new()), LockKey::new("workflow/a")?);
/// let workflow = Versioned::new(lock, vec!["fetch"]);
///
/// let before = workflow.snapshot();
/// let mut draft = workflow.draft_blocking()?;
/// draft.push("parse");
/// assert_eq!(draft.commit()?, 1);
/// assert_eq!(*before, ["fetch"]);
/// assert_eq!(*workflow.snapshot(), ["fetch", "parse"]);
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Versioned<T> {
    lock: Lock,
    current: ArcSwap<Version<T>>,
}

#[derive(Debug)]
struct Version<T> {
    number: u64,
    /// The writer's token; `None` for the first version.
    token: Option<FencingToken>,
    value: T,
}

/// One version of a value, kept alive as long as somebody looks at it. A thread can have a few at no
/// cost to others; beyond eight or so each counts a reference.
#[derive(Debug)]
pub struct Snapshot<T>(Guard<Arc<Version<T>>>);

/// The next version in the making. Dropping it discards it, also on a panic.
#[derive(Debug)]
#[must_use = "a draft is discarded unless it is committed"]
pub struct Draft<'a, T> {
    versioned: &'a Versioned<T>,
    guard: LockGuard,
    base: u64,
    value: T,
}

impl<T> Versioned<T> {
    /// Version 0 of a value, whose writers take `lock` exclusively.
    pub fn new(lock: Lock, value: T) -> Self {
        let first = Version {
            number: 0,
            token: None,
            value,
        };
        Self {
            lock,
            current: ArcSwap::from_pointee(first),
        }
    }

    /// The latest committed version. Never blocks, whatever writers do.
    #[inline]
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot(self.current.load())
    }

    /// The lock that writers take.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }
}

impl<T: Clone + Send + Sync> Versioned<T> {
    /// Waits for the lock and starts the next version as a copy of the latest.
    ///
    /// # Errors
    /// As [`Lock::acquire`], and `InvalidConfig` when the lock's options are not exclusive.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no lock and no queue entry.
    pub async fn draft(&self) -> Result<Draft<'_, T>> {
        self.start(self.lock.acquire().await?)
    }

    /// [`draft`](Self::draft) for threads without a runtime.
    ///
    /// # Errors
    /// As [`draft`](Self::draft).
    ///
    /// # Blocking
    /// Parks the thread as long as the lock's wait limit allows.
    pub fn draft_blocking(&self) -> Result<Draft<'_, T>> {
        self.start(self.lock.acquire().wait()?)
    }

    fn start(&self, guard: LockGuard) -> Result<Draft<'_, T>> {
        if guard.fencing_token().is_none() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("held as {}; write under an exclusive lock", guard.mode()),
            )
            .with_key(guard.key()));
        }
        let latest = self.current.load();
        let (base, value) = (latest.number, latest.value.clone());
        Ok(Draft {
            versioned: self,
            guard,
            base,
            value,
        })
    }
}

impl<T> Draft<'_, T> {
    /// Makes the draft the latest version, releases the lock, and returns the version's number.
    ///
    /// # Errors
    /// `Lost` when the lock was lost or a newer writer has committed; nothing has changed then.
    pub fn commit(self) -> Result<u64> {
        let Self {
            versioned,
            guard,
            base,
            value,
        } = self;
        let token = guard.fencing_token();
        if let Some(reason) = guard.loss() {
            return Err(Error::new(ErrorKind::Lost, reason.to_string()).with_key(guard.key()));
        }
        let latest = versioned.current.load();
        let next = Arc::new(Version {
            number: base + 1,
            token,
            value,
        });
        // Compares and writes in one step, so that a writer which lost the lock unnoticed cannot
        // overwrite a newer version.
        if latest.number != base || latest.token > token {
            return Err(overtaken(&guard));
        }
        let before = versioned
            .current
            .compare_and_swap(&*latest, Arc::clone(&next));
        if !Arc::ptr_eq(&before, &latest) {
            return Err(overtaken(&guard));
        }
        Ok(next.number)
    }

    /// The lock under which it is made.
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }
}

fn overtaken(guard: &LockGuard) -> Error {
    Error::new(
        ErrorKind::Lost,
        "a newer writer has committed; read again and retry",
    )
    .with_key(guard.key())
}

impl<T> Deref for Draft<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Draft<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Snapshot<T> {
    /// The version's number: 0 for the first, one more with each commit.
    pub fn version(&self) -> u64 {
        self.0.number
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(Guard::from_inner(Arc::clone(&self.0)))
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}
