//! A lock file's first page in memory.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use lock_core::host::LockFile;
use lock_core::parking::Parking;

use crate::page::{Bell, PAGE_LEN, Page, futex};

/// A lock file's first page in memory, shared with every process that maps it.
///
/// A map keeps the open file that it was made of alive, also in a forked child, so it is made of one
/// that is never locked.
pub(crate) struct Map {
    address: NonNull<Page>,
}

impl Map {
    /// Maps the page of a file, which is there whole. `None` when the system cannot.
    pub(crate) fn of(file: &LockFile) -> Option<Arc<Self>> {
        let unlocked = LockFile::open_existing(file.path().to_owned()).ok()??;
        if !unlocked.is_same_file(file) || unlocked.len_when_opened() < PAGE_LEN as u64 {
            return None;
        }
        let address = Self::map(&unlocked)?;
        Some(Arc::new(Self { address }))
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn map(file: &LockFile) -> Option<NonNull<Page>> {
        use rustix::mm::{MapFlags, ProtFlags};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        #[expect(unsafe_code, reason = "no safe crate maps a page that others change")]
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let address = unsafe {
            let nowhere = std::ptr::null_mut();
            rustix::mm::mmap(nowhere, PAGE_LEN, access, MapFlags::SHARED, file.file(), 0)
        };
        NonNull::new(address.ok()?.cast())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn map(_file: &LockFile) -> Option<NonNull<Page>> {
        None
    }
}

impl Deref for Map {
    type Target = Page;

    fn deref(&self) -> &Page {
        #[expect(unsafe_code, reason = "no safe crate maps a page that others change")]
        // SAFETY: the mapping is as long and as aligned as a page, and stays as long as `self`.
        // `Page` consists of atomics, for which any bytes are valid, and which others may change
        // at any time. Touching it ends the process if the file was cut short meanwhile, which
        // `KeyFile` looks for.
        unsafe {
            self.address.as_ref()
        }
    }
}

#[expect(unsafe_code, reason = "a pointer is neither by itself")]
// SAFETY: it points to atomics, in memory that belongs to the value and to no thread.
unsafe impl Send for Map {}
#[expect(unsafe_code, reason = "a pointer is neither by itself")]
// SAFETY: as above; there is no access but by atomics.
unsafe impl Sync for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        #[expect(unsafe_code, reason = "the counterpart of `map`")]
        // SAFETY: the mapping is this value's, and no reference to it outlives the value.
        unsafe {
            let _ = rustix::mm::munmap(self.address.as_ptr().cast(), PAGE_LEN);
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}

/// Whether files of a directory may be mapped: on file systems where a page that was allocated can
/// be written to whatever happens. One that copies on write may find no room, which ends the
/// process.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_safe_in(directory: &Path) -> bool {
    const EXT: u32 = 0xef53;
    const TMPFS: u32 = 0x0102_1994;
    const XFS: u32 = 0x5846_5342;
    rustix::fs::statfs(directory).is_ok_and(|stat| matches!(stat.f_type as u32, EXT | TMPFS | XFS))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_safe_in(_directory: &Path) -> bool {
    false
}

/// Where a thread sleeps until a bell is rung.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) map: Arc<Map>,
    pub(crate) bell: Bell,
    /// What the word was before the thread asked in vain.
    pub(crate) seen: u32,
    /// When it looks by itself.
    pub(crate) pause: Duration,
}

impl Parking for Bed {
    fn park(&self, limit: Option<Duration>) {
        let limit = limit.map_or(self.pause, |limit| limit.min(self.pause));
        futex::wait(self.map.bells.word(self.bell), self.seen, limit);
    }

    fn unpark(&self) {
        // It cannot be told from those of other processes, who look once for nothing.
        self.map.bells.wake_all(self.bell);
    }
}
