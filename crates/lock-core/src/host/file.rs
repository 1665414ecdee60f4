//! One open file and the kernel's lock on it.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fs4::{FileExt, TryLockError};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::failure::{failed, foreign_file};
use crate::Result;
use crate::fork::InheritedDescriptor;

/// One open file and the kernel's lock on it.
///
/// The descriptor closes on `exec` and in a forked child, so that only this process can keep the
/// lock; and it is unlocked before it is closed, so that a process being spawned at that moment
/// does not keep it either.
#[derive(Debug)]
pub struct LockFile {
    /// Dropped before the descriptor.
    _in_child: InheritedDescriptor,
    file: File,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    len_when_opened: u64,
    was_linked: bool,
    locked: bool,
}

/// How to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Nobody else has it.
    Exclusive,
    /// Others may have it shared.
    Shared,
}

impl LockFile {
    /// Opens the file, creating it empty if it does not exist. Never truncates, never follows a
    /// symbolic link, never blocks on a fifo.
    ///
    /// # Errors
    /// What the system says; `Backend` for what is no regular file of this user.
    pub fn open(path: PathBuf) -> Result<Self> {
        let opened = open_with(&path, OFlags::CREATE);
        Self::adopt(path, opened)
    }

    /// Opens the file if it exists.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_existing(path: PathBuf) -> Result<Option<Self>> {
        match open_with(&path, OFlags::empty()) {
            Err(Errno::NOENT) => Ok(None),
            opened => Self::adopt(path, opened).map(Some),
        }
    }

    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn create_new(path: PathBuf) -> Result<Self> {
        let opened = open_with(&path, OFlags::CREATE | OFlags::EXCL);
        Self::adopt(path, opened)
    }

    /// Opens the file and asks for its lock. It is looked at once, after that: whoever deletes or
    /// replaces a file meanwhile leaves one behind that [`was_linked`](Self::was_linked) by no path,
    /// which spares asking whether it [`is_current`](Self::is_current).
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the file system has no locks.
    pub fn open_and_try_lock(path: PathBuf, kind: LockKind) -> Result<(Self, bool)> {
        let opened = open_with(&path, OFlags::CREATE);
        let locked = match &opened {
            Ok(file) => ask(file, kind, &path)?,
            Err(_) => false,
        };
        let mut adopted = Self::adopt(path, opened)?;
        adopted.locked = locked;
        Ok((adopted, locked))
    }

    fn adopt(path: PathBuf, opened: std::result::Result<File, Errno>) -> Result<Self> {
        let looked_at = opened.and_then(|file| Ok((rustix::fs::fstat(&file)?, file)));
        let (stat, file) = looked_at.map_err(|errno| failed("open", &path, errno))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(foreign_file(&path, "is not a regular file"));
        }
        if !is_this_user(stat.st_uid) {
            return Err(foreign_file(&path, "belongs to another user"));
        }
        Ok(Self {
            _in_child: InheritedDescriptor::close_in_child(file.as_fd()),
            file,
            path,
            identity: identity(&stat),
            len_when_opened: len(&stat),
            was_linked: stat.st_nlink > 0,
            locked: false,
        })
    }

    /// Asks the kernel for the lock, without waiting. Held already, it is converted.
    ///
    /// # Errors
    /// When the file system has no locks.
    pub fn try_lock(&mut self, kind: LockKind) -> Result<bool> {
        let granted = ask(&self.file, kind, &self.path)?;
        self.locked |= granted;
        Ok(granted)
    }

    /// Gives the lock back.
    pub fn unlock(&mut self) {
        if std::mem::take(&mut self.locked)
            && let Err(error) = FileExt::unlock(&self.file)
        {
            // Closing the descriptor, which follows, unlocks as well.
            tracing::warn!(path = %self.path.display(), %error, "unlocking failed");
        }
    }

    /// Whether the path still leads to this file: locks on a file that was deleted or replaced
    /// exclude nobody who comes later.
    pub fn is_current(&self) -> bool {
        self.current_len().is_some()
    }

    /// The length of the file, if the path still leads to it.
    pub fn current_len(&self) -> Option<u64> {
        let stat = rustix::fs::lstat(&self.path).ok()?;
        (identity(&stat) == self.identity).then(|| len(&stat))
    }

    /// Whether some path leads to this file, at half the price of
    /// [`is_current`](Self::is_current): a file that was deleted or replaced has none, one that was
    /// moved away has.
    pub fn is_linked(&self) -> bool {
        self.linked_len().is_some()
    }

    /// The length of the file, if some path leads to it.
    pub fn linked_len(&self) -> Option<u64> {
        let stat = rustix::fs::fstat(&self.file).ok()?;
        (stat.st_nlink > 0).then(|| len(&stat))
    }

    /// The length of the file when it was opened.
    pub fn len_when_opened(&self) -> u64 {
        self.len_when_opened
    }

    /// Whether some path led to the file when it was opened, or just after its lock was asked for.
    pub fn was_linked(&self) -> bool {
        self.was_linked
    }

    /// Whether both are the same file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One byte of the file; 0 past its end.
    pub fn byte(&self, at: u64) -> u8 {
        let mut byte = [0];
        match self.file.read_at(&mut byte, at) {
            Ok(1) => byte[0],
            _ => 0,
        }
    }

    /// Writes one byte of the file.
    ///
    /// # Errors
    /// When the file system is full, for one.
    pub fn set_byte(&self, at: u64, value: u8) -> Result<()> {
        let written = self.file.write_all_at(&[value], at);
        written.map_err(|source| failed("write to", &self.path, source))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        self.unlock();
    }
}

fn open_with(path: &Path, extra: OFlags) -> std::result::Result<File, Errno> {
    // Writable even for shared locks: some file systems want that for an exclusive lock.
    let flags = OFlags::RDWR
        | OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | extra;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Whether this process runs as that user. It seldom changes its user, and asking the system takes
/// as long as looking at a file.
fn is_this_user(user: u32) -> bool {
    static LAST_SEEN: AtomicU32 = AtomicU32::new(u32::MAX);
    if LAST_SEEN.load(Ordering::Relaxed) == user {
        return true;
    }
    let this = rustix::process::geteuid().as_raw();
    LAST_SEEN.store(this, Ordering::Relaxed);
    this == user
}

fn ask(file: &File, kind: LockKind, path: &Path) -> Result<bool> {
    let outcome = match kind {
        LockKind::Exclusive => FileExt::try_lock(file),
        LockKind::Shared => FileExt::try_lock_shared(file),
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(failed("lock", path, source)),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        trivial_numeric_casts,
        reason = "the types differ between systems"
    )]
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn len(stat: &Stat) -> u64 {
    // A length is never negative.
    stat.st_size.unsigned_abs()
}
