//! The one door to synchronisation: the standard library's, or a model checker's.
//!
//! Everything that threads share in this crate goes through here, so that `--cfg loom` and
//! `--cfg shuttle` replace all of it, and `--cfg races` what a race detector cannot look into.

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    pub(crate) use once_cell::race::OnceBox;

    #[cfg(races)]
    pub(crate) use parking_lot::{Mutex, MutexGuard};
    // The race detector sees what is compiled with it, and so not what this does when it waits.
    #[cfg(not(races))]
    pub(crate) use std::sync::{Mutex, MutexGuard};

    const SPINS: u32 = 64;

    /// Waits a moment for another thread to leave a section of a few nanoseconds, or gives it the
    /// processor if it seems to have lost it there.
    pub(crate) fn pause(turns: &mut u32) {
        *turns += 1;
        if *turns < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }

    /// How long it has been.
    pub(crate) fn elapsed(since: lock_core::clock::Instant) -> std::time::Duration {
        lock_core::clock::Instant::now().saturating_duration_since(since)
    }

    /// A place that its user guards.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
            change(self.0.get())
        }
    }
}

#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;

#[cfg(loom)]
mod checked {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn pause(_turns: &mut u32) {
        loom::thread::yield_now();
    }

    /// A place that is filled once, by whoever comes first. The checker is told that it is.
    #[derive(Debug)]
    pub(crate) struct OnceBox<T> {
        is_filled: AtomicBool,
        filling: Mutex<()>,
        place: once_cell::race::OnceBox<T>,
    }

    impl<T> OnceBox<T> {
        pub(crate) fn new() -> Self {
            Self {
                is_filled: AtomicBool::new(false),
                filling: Mutex::new(()),
                place: once_cell::race::OnceBox::new(),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            let is_filled = self.is_filled.load(Ordering::Acquire);
            is_filled.then(|| self.place.get()).flatten()
        }

        pub(crate) fn get_or_init(&self, fill: impl FnOnce() -> Box<T>) -> &T {
            let _filling = super::lock(&self.filling);
            let value = self.place.get_or_init(fill);
            self.is_filled.store(true, Ordering::Release);
            value
        }
    }

    /// Time stands still in a model.
    pub(crate) fn elapsed(_since: lock_core::clock::Instant) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

#[cfg(loom)]
pub(crate) use checked::*;

#[cfg(all(shuttle, not(loom)))]
mod shuttled {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) use once_cell::race::OnceBox;

    pub(crate) fn pause(_turns: &mut u32) {
        shuttle::thread::yield_now();
    }

    /// Time stands still in a model.
    pub(crate) fn elapsed(_since: lock_core::clock::Instant) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    /// A place that its user guards.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
            change(self.0.get())
        }
    }
}

#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttled::*;

/// Locks, whether or not a thread has panicked under it: everything here is whole between two
/// steps.
#[cfg(not(races))]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(races)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
