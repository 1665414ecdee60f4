//! Noticing a fork, cheaply and in time.
//!
//! A forked child copies every byte of its parent, also the belief that a lock is held. So a child
//! must start anew: [`generation`] tells whether a value was made before the fork, [`ForkLocal`]
//! holds per-process state without touching the parent's, and [`InheritedDescriptor`] closes
//! descriptors that would keep a kernel lock alive.
//!
//! The hook is `pthread_atfork`, which the C library runs for `fork`. A process made by a raw
//! `clone` or `vfork` is not noticed; both are meant for an `exec` right after.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use once_cell::race::OnceBox;

/// One more than the forks along this process's line of ancestors since the hook counts them.
static GENERATION: AtomicU64 = AtomicU64::new(NO_HOOK);
const NO_HOOK: u64 = 0;

/// Which process this is, along a line of forks: it changes in the child, and only there.
///
/// One relaxed load; the first call registers the fork hook.
#[inline]
pub fn generation() -> u64 {
    match GENERATION.load(Ordering::Relaxed) {
        NO_HOOK => first_generation(),
        generation => generation,
    }
}

#[cold]
fn first_generation() -> u64 {
    #[cfg(unix)]
    hook::install();
    let counts = GENERATION.compare_exchange(NO_HOOK, 1, Ordering::Relaxed, Ordering::Relaxed);
    counts.map_or_else(|already| already, |_| 1)
}

/// A value of this process. A child made by `fork` gets a new one, and never reads, locks or drops
/// the parent's.
#[derive(Debug)]
pub struct ForkLocal<T> {
    /// In place, for whoever made the value with the cell.
    first: Node<T>,
}

/// In the order in which it is looked at.
#[derive(Debug)]
#[repr(C)]
struct Node<T> {
    generation: u64,
    /// `None` only while dropping, and in a cell that began empty.
    value: Option<T>,
    next: OnceBox<Self>,
}

impl<T> ForkLocal<T> {
    /// An empty cell.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Node {
                generation: NO_HOOK,
                value: None,
                next: OnceBox::new(),
            },
        }
    }

    /// A cell with this process's value, which lies in it: it is reached sooner than one that is made
    /// on first use.
    #[must_use]
    pub fn with_value(value: T) -> Self {
        Self {
            first: Node {
                generation: generation(),
                value: Some(value),
                next: OnceBox::new(),
            },
        }
    }

    /// This process's value, made by `init` on first use. Racing threads may run `init` twice; one
    /// result is kept and the other dropped, so no thread waits for another, also not for one that
    /// a fork left behind.
    #[inline]
    pub fn get_or_init(&self, init: impl Fn() -> T) -> &T {
        let generation = generation();
        if let Some(value) = self.first.value_of(generation) {
            return value;
        }
        if let Some(node) = self.first.next.get()
            && let Some(value) = node.value_of(generation)
        {
            return value;
        }
        self.find_or_init(generation, init)
    }

    #[cold]
    #[inline(never)]
    fn find_or_init(&self, generation: u64, init: impl Fn() -> T) -> &T {
        let mut node = &self.first;
        loop {
            node = node.next.get_or_init(|| {
                Box::new(Node {
                    generation,
                    value: Some(init()),
                    next: OnceBox::new(),
                })
            });
            if let Some(value) = node.value_of(generation) {
                return value;
            }
        }
    }

    /// This process's value, if it has been made.
    pub fn get(&self) -> Option<&T> {
        let generation = generation();
        let mut node = &self.first;
        loop {
            if node.generation == generation {
                return node.value.as_ref();
            }
            node = node.next.get()?;
        }
    }
}

impl<T> Node<T> {
    #[inline]
    fn value_of(&self, generation: u64) -> Option<&T> {
        self.value
            .as_ref()
            .filter(|_| self.generation == generation)
    }
}

impl<T> Default for ForkLocal<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        // Invariant: the parent's value is leaked, never dropped: its drop could release a lock,
        // or wait for a mutex whose owner does not exist here.
        if self.generation != generation() {
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(unix)]
pub use hook::InheritedDescriptor;

/// The forks of this process wait for readers, and hold it for writing.
static CALM: RwLock<()> = RwLock::new(());

/// Keeps forks of this process waiting until it is dropped: [`undisturbed`].
#[derive(Debug)]
#[must_use = "forks go on as soon as it is dropped"]
pub struct Undisturbed {
    _reader: RwLockReadGuard<'static, ()>,
}

/// Keeps forks of this process waiting while a library with state of its own is at work, so that a
/// child finds that state whole, and its mutexes free.
///
/// For short work only, never nested, and without any code of the user in it: a fork inside would
/// wait for itself.
pub fn undisturbed() -> Undisturbed {
    generation();
    Undisturbed {
        _reader: CALM.read().unwrap_or_else(PoisonError::into_inner),
    }
}

thread_local! {
    /// Held by the thread that forks, and so by the only thread of the child.
    static FORKING: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

#[cfg(unix)]
mod hook {
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::sync::{Once, PoisonError};

    use once_cell::race::OnceBox;

    /// Makes the C library call [`in_child`] in every forked child, and the others around it.
    pub(super) fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            #[expect(unsafe_code, reason = "no safe crate offers pthread_atfork")]
            // SAFETY: the functions have the required type and live for ever. `in_child` touches
            // only atomics, close(2), and a lock that its own thread holds: all of it is allowed
            // between fork and exec.
            let status =
                unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
            assert_eq!(status, 0, "the C library has no memory for a fork hook");
        });
    }

    extern "C" fn before() {
        let calm = super::CALM.write().unwrap_or_else(PoisonError::into_inner);
        // A thread that is ending forks without: it cannot keep anything.
        let _ = super::FORKING.try_with(|forking| forking.replace(Some(calm)));
    }

    extern "C" fn in_parent() {
        let _ = super::FORKING.try_with(|forking| forking.take());
    }

    extern "C" fn in_child() {
        in_parent();
        super::GENERATION.fetch_add(1, Ordering::Relaxed);
        let mut chunk = FIRST.get();
        while let Some(slots) = chunk {
            for slot in &slots.descriptors {
                let descriptor = slot.swap(FREE, Ordering::Relaxed);
                if descriptor >= 0 {
                    #[expect(unsafe_code, reason = "the owner stays behind in the parent")]
                    // SAFETY: the descriptor is open (an `InheritedDescriptor` borrows it), and
                    // its owner in this process is leaked by `ForkLocal`, so nobody uses it again.
                    unsafe {
                        libc::close(descriptor);
                    }
                }
            }
            chunk = slots.next.get();
        }
    }

    const FREE: i32 = -1;
    const SLOTS: usize = 64;

    static FIRST: OnceBox<Chunk> = OnceBox::new();

    /// A part of the list of descriptors: grows, never shrinks, needs no lock.
    #[derive(Debug)]
    struct Chunk {
        descriptors: [AtomicI32; SLOTS],
        next: OnceBox<Self>,
    }

    impl Chunk {
        fn new() -> Box<Self> {
            Box::new(Self {
                descriptors: [const { AtomicI32::new(FREE) }; SLOTS],
                next: OnceBox::new(),
            })
        }
    }

    /// Makes a forked child close a descriptor, as `O_CLOEXEC` does for an `exec`.
    ///
    /// Keep it beside the owner of the descriptor, declared *before* it, so that it is dropped
    /// first; keep both in a [`ForkLocal`](super::ForkLocal).
    #[derive(Debug)]
    pub struct InheritedDescriptor(&'static AtomicI32);

    impl InheritedDescriptor {
        /// Enters `descriptor` into the list that a child closes.
        pub fn close_in_child(descriptor: BorrowedFd<'_>) -> Self {
            super::generation();
            let raw = descriptor.as_raw_fd();
            let mut chunk = FIRST.get_or_init(Chunk::new);
            loop {
                for slot in &chunk.descriptors {
                    // Most are taken, and looking costs much less than trying.
                    if slot.load(Ordering::Relaxed) != FREE {
                        continue;
                    }
                    let taken =
                        slot.compare_exchange(FREE, raw, Ordering::AcqRel, Ordering::Relaxed);
                    if taken.is_ok() {
                        return Self(slot);
                    }
                }
                chunk = chunk.next.get_or_init(Chunk::new);
            }
        }
    }

    impl Drop for InheritedDescriptor {
        fn drop(&mut self) {
            self.0.store(FREE, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_per_process() {
        let cell = ForkLocal::new();
        assert!(cell.get().is_none());
        assert_eq!(*cell.get_or_init(|| 1), 1);
        assert_eq!(*cell.get_or_init(|| 2), 1);
        assert_eq!(cell.get(), Some(&1));
    }

    #[test]
    fn a_value_may_come_with_the_cell() {
        let cell = ForkLocal::with_value(1);
        assert_eq!(cell.get(), Some(&1));
        assert_eq!(*cell.get_or_init(|| 2), 1);
    }
}
