//! The lock file of a key: the kernel's lock, and the page that processes share.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use lock_core::Result;
use lock_core::host::{LockFile, LockKind, failed, foreign_file};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::map::Map;
use crate::page::{BELLS_AT, Bell, DOOR_AT, NEXT_AT, PAGE_LEN, RING_AT, SOMEBODY_SLEEPS};
use crate::record::{self, Body, Head};

/// The lock file of a key.
///
/// Its page is mapped when the file is used a second time, because for one use reading and writing
/// costs less.
#[derive(Debug)]
pub(crate) struct KeyFile {
    lock: LockFile,
    map: Option<Arc<Map>>,
    may_map: bool,
}

/// How a process hears a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    /// A thread of it sleeps on the bell's word.
    Asleep,
    /// It listens for writes to the bell's file.
    ByFile,
}

impl KeyFile {
    /// Opens the file, and makes its page if it is new.
    pub(crate) fn open(path: PathBuf, may_map: bool) -> Result<Self> {
        Self::with_page(LockFile::open(path)?, may_map)
    }

    /// The same, and asks for the lock. Returns whether it was granted.
    pub(crate) fn open_and_try_lock(
        path: PathBuf,
        may_map: bool,
        kind: LockKind,
    ) -> Result<(Self, bool)> {
        let (lock, granted) = LockFile::open_and_try_lock(path, kind)?;
        Ok((Self::with_page(lock, may_map)?, granted))
    }

    fn with_page(lock: LockFile, may_map: bool) -> Result<Self> {
        let may_map = make_page(&lock)? && may_map;
        Ok(Self {
            lock,
            map: None,
            may_map,
        })
    }

    /// Opens the file if it exists and has its page.
    pub(crate) fn open_existing(path: PathBuf) -> Result<Option<Self>> {
        let lock = LockFile::open_existing(path)?;
        Ok(lock
            .filter(|lock| lock.len_when_opened() >= PAGE_LEN as u64)
            .map(|lock| Self {
                lock,
                map: None,
                may_map: true,
            }))
    }

    /// Creates a file that must not exist yet.
    pub(crate) fn create_new(path: PathBuf) -> Result<Self> {
        Self::with_page(LockFile::create_new(path)?, false)
    }

    pub(crate) fn try_lock(&mut self, kind: LockKind) -> Result<bool> {
        self.lock.try_lock(kind)
    }

    /// Gives the lock back, and tells who waits for it.
    pub(crate) fn unlock(&mut self) {
        self.lock.unlock();
        self.ring_lock();
    }

    /// Whether it was neither deleted nor replaced until the lock was asked for that it was opened
    /// for.
    pub(crate) fn was_linked(&self) -> bool {
        self.lock.was_linked()
    }

    /// Whether the path still leads to this file, and its page is there.
    pub(crate) fn is_current(&mut self) -> bool {
        self.has_page(self.lock.current_len())
    }

    /// Whether it was neither deleted nor replaced, and its page is there.
    pub(crate) fn is_linked(&mut self) -> bool {
        self.has_page(self.lock.linked_len())
    }

    fn has_page(&mut self, len: Option<u64>) -> bool {
        let cut_short = len.is_some_and(|len| len < PAGE_LEN as u64);
        if cut_short {
            // Touching a page that is gone would end the process.
            self.map = None;
            self.may_map = false;
        }
        len.is_some() && !cut_short
    }

    pub(crate) fn path(&self) -> &Path {
        self.lock.path()
    }

    /// Maps the page, if it can be mapped and is not. Returns whether it is now.
    pub(crate) fn map(&mut self) -> bool {
        if self.map.is_none() && self.may_map {
            self.map = Map::of(&self.lock);
            self.may_map = self.map.is_some();
        }
        self.map.is_some()
    }

    pub(crate) fn mapped(&self) -> Option<&Arc<Map>> {
        self.map.as_ref()
    }

    /// Reads what an acquire has to know. The caller has the kernel's lock.
    pub(crate) fn door(&self) -> Result<Door> {
        let (bytes, next) = match &self.map {
            Some(map) => (map.door(), map.bells.somebody_is_next()),
            None => {
                let bytes = record::read_door(&self.lock)?;
                let next = NEXT_AT - DOOR_AT;
                (bytes, bytes[next..next + 4] != [0; 4])
            }
        };
        Ok(Door {
            head: record::newest_head(&bytes, self.path())?,
            somebody_is_next: next,
        })
    }

    /// Writes the state that follows `head`. The caller has the kernel's lock exclusively.
    pub(crate) fn write(&self, head: &Head, body: &[u8]) -> Result<()> {
        match &self.map {
            Some(map) if record::fits_page(head, body) => {
                let bytes = record::encode_head(head, body);
                map.write(head.sequence, &bytes, body);
                Ok(())
            }
            _ => record::write(&self.lock, head, body),
        }
    }

    pub(crate) fn somebody_is_next(&self) -> bool {
        match &self.map {
            Some(map) => map.bells.somebody_is_next(),
            None => self.words()[(NEXT_AT - BELLS_AT) / 4] != 0,
        }
    }

    pub(crate) fn set_next(&self, next: bool) -> Result<()> {
        match &self.map {
            Some(map) => map.bells.set_next(next),
            None => self.set_word(NEXT_AT, next)?,
        }
        Ok(())
    }

    /// Says that this process is going to wait for a bell. Call it before asking. Returns the
    /// bell's word for who sleeps on it.
    pub(crate) fn will_wait(&mut self, bell: Bell, how: Hears) -> Result<u32> {
        self.map();
        match (&self.map, how) {
            (Some(map), Hears::Asleep) => return Ok(map.bells.will_sleep(bell)),
            (Some(map), Hears::ByFile) => map.bells.will_listen(bell),
            (None, _) => self.set_word(bell.listened_at(), true)?,
        }
        Ok(0)
    }

    pub(crate) fn ring_lock(&mut self) {
        if self.ring(Bell::Lock) {
            // A wake-up that cannot be written costs its reader one backup poll.
            let _ = self.lock.set_byte(RING_AT as u64, 1);
        }
    }

    /// Tells everybody who waits for anything; who listens for the turn, by the turn's file.
    pub(crate) fn ring_all(&mut self, turn: Option<&LockFile>) {
        self.ring_lock();
        if self.ring(Bell::Turn)
            && let Some(turn) = turn
        {
            let _ = turn.set_byte(RING_AT as u64, 1);
        }
        if let Some(map) = &self.map {
            map.bells.wake_all(Bell::Turn);
        }
    }

    /// The record of who holds it, whether that is so or not.
    pub(crate) fn record(&self) -> Result<Option<(Head, Option<Body>)>> {
        record::read(&self.lock)
    }

    /// Wakes who sleeps. Returns whether somebody listens for a write to the bell's file.
    pub(crate) fn ring(&mut self, bell: Bell) -> bool {
        // Whoever asked before the lock was given back has said before that it waits.
        fence(Ordering::SeqCst);
        let mut listened = 0;
        if self.map.is_none() {
            let words = self.words();
            let word = |at: usize| words[(at - BELLS_AT) / 4];
            listened = word(bell.listened_at());
            if word(bell.word_at()) & SOMEBODY_SLEEPS != 0 {
                self.map();
            }
        }
        match &self.map {
            Some(map) => map.bells.ring(bell),
            None => listened != 0 && self.set_word(bell.listened_at(), false).is_ok(),
        }
    }

    /// The bells, without a map; zeros if they cannot be read.
    fn words(&self) -> [u32; 5] {
        let mut bytes = [0; 20];
        match self.lock.file().read_at(&mut bytes, BELLS_AT as u64) {
            Ok(20) => [0, 4, 8, 12, 16].map(|at| {
                u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }),
            _ => [0; 5],
        }
    }

    fn set_word(&self, at: usize, value: bool) -> Result<()> {
        let bytes = u32::from(value).to_ne_bytes();
        let written = self.lock.file().write_all_at(&bytes, at as u64);
        written.map_err(|source| failed("write to", self.path(), source))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.lock.unlock();
    }
}

/// What an acquire has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) head: Head,
    /// Another process may be next.
    pub(crate) somebody_is_next: bool,
}

/// Gives a new file its page, with room for it on the disk. Returns whether there is room whatever
/// happens.
fn make_page(lock: &LockFile) -> Result<bool> {
    if lock.len_when_opened() >= PAGE_LEN as u64 {
        return Ok(true);
    }
    if lock.len_when_opened() > 0 {
        return Err(foreign_file(lock.path(), "is no lock file"));
    }
    let len = PAGE_LEN as u64;
    match rustix::fs::fallocate(lock.file(), FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let set = lock.file().set_len(len);
            set.map_err(|source| failed("write to", lock.path(), source))?;
            Ok(false)
        }
        Err(errno) => Err(failed("write to", lock.path(), errno)),
    }
}
