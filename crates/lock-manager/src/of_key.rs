//! A backend as the users of one key get it.

use std::sync::Arc;

#[cfg(feature = "threading")]
use lock_core::wrap::WatchedKey;
use lock_core::{FencingNumber, LockBackend, LockKey, OwnerToken, PlainRequest};

/// A backend for the users of one key.
#[derive(Debug)]
pub(crate) enum OfKey {
    /// In place, with nothing between it and its users: an acquire takes as long as it takes to reach
    /// what it looks at.
    #[cfg(feature = "threading")]
    InProcess(lock_threading::OneKey),
    /// The same with deadlock detection.
    #[cfg(feature = "threading")]
    Watched(WatchedKey<lock_threading::OneKey>),
    Any {
        backend: Arc<dyn LockBackend>,
        /// The innermost, where it knows who holds.
        counts: Option<Arc<dyn CountsHolders>>,
    },
}

/// A backend for users of one key alone, which knows who holds it through itself.
pub(crate) trait CountsHolders: LockBackend {
    /// How many hold the key.
    ///
    /// Whoever takes or gives back the key after this has looked at it sees what was written before.
    fn holders(&self) -> usize;
}

#[cfg(feature = "threading")]
impl CountsHolders for lock_threading::OneKey {
    fn holders(&self) -> usize {
        Self::holders(self)
    }
}

impl OfKey {
    pub(crate) fn backend(&self) -> &dyn LockBackend {
        match self {
            #[cfg(feature = "threading")]
            Self::InProcess(one_key) => one_key,
            #[cfg(feature = "threading")]
            Self::Watched(watched) => watched,
            Self::Any { backend, .. } => &**backend,
        }
    }

    /// Whether it knows who holds.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        !matches!(self, Self::Any { counts: None, .. })
    }

    /// How many hold the key, if it knows.
    pub(crate) fn holders(&self) -> Option<usize> {
        match self {
            #[cfg(feature = "threading")]
            Self::InProcess(one_key) => Some(one_key.holders()),
            #[cfg(feature = "threading")]
            Self::Watched(watched) => Some(watched.inner().holders()),
            Self::Any { counts, .. } => counts.as_ref().map(|counts| counts.holders()),
        }
    }

    #[inline]
    pub(crate) fn acquire_plain(
        &self,
        key: &LockKey,
        request: &PlainRequest,
    ) -> Option<FencingNumber> {
        match self {
            #[cfg(feature = "threading")]
            Self::InProcess(one_key) => one_key.acquire_plain(key, request),
            #[cfg(feature = "threading")]
            Self::Watched(watched) => watched.acquire_plain(key, request),
            Self::Any { backend, .. } => backend.acquire_plain(key, request),
        }
    }

    #[inline]
    pub(crate) fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        match self {
            #[cfg(feature = "threading")]
            Self::InProcess(one_key) => one_key.abandon(key, attempt),
            #[cfg(feature = "threading")]
            Self::Watched(watched) => watched.abandon(key, attempt),
            Self::Any { backend, .. } => backend.abandon(key, attempt),
        }
    }
}
