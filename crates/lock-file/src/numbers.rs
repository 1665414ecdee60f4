//! The numbers of a directory: how high fencing bases may have risen, over boots and power cuts.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lock_core::host::{LockFile, LockKind};
use lock_core::{ErrorKind, FencingNumber, ProcessRecord, Result};

use crate::error::{error, failed};
use crate::record::checksum;

/// Draws the bases of fencing numbers.
///
/// A lock file counts on from its own last base, which a crash of processes cannot take away, but a
/// power cut can, as nothing is forced to the disk for a lock. So the directory has a file that
/// says how far bases may have risen: it is raised, and forced to the disk, before the first base
/// beyond is drawn; in a new boot every base starts from there. That is one forced write for each
/// boot, and one for every 4 billion bases, which are 71 minutes of the clock.
#[derive(Debug)]
pub(crate) struct Numbers {
    path: PathBuf,
    /// Where bases start in this boot. 0: not read yet.
    floor: AtomicU64,
    /// Bases from here on need a forced write first.
    reserved: AtomicU64,
}

const STEP: u64 = 1 << 32;

/// The name of the file. No key's file is named so: those have a dot and a suffix.
pub(crate) const FILE: &str = "fencing";

/// How long to wait for another process that raises, which forces a write to the disk.
const LIMIT: Duration = Duration::from_secs(5);

impl Numbers {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE),
            floor: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
        }
    }

    /// The base that follows `before`, which is 0 in a file that has none yet.
    ///
    /// # Blocking
    /// Once a boot, and once in 71 minutes, for a forced write.
    pub(crate) fn next(&self, before: u64, now: SystemTime) -> Result<u64> {
        let wall = micros(now);
        let mut next = next_base(before, self.floor.load(Ordering::Relaxed), wall);
        // What was swept away may have had higher numbers than this process knows of.
        if before == 0 || next >= self.reserved.load(Ordering::Acquire) {
            let floor = self.raise(&self.alone()?, |state| {
                next = next_base(before, state.floor, wall);
                if next >= state.reserved {
                    state.reserved = next.saturating_add(STEP);
                }
            })?;
            next = next_base(before, floor, wall);
        }
        Ok(next)
    }

    /// Where bases start, as far as this process knows; 0 before the first.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// From now on, a file that has no number yet starts behind `base`. Takes what
    /// [`alone`](Self::alone) gave.
    pub(crate) fn start_behind(&self, base: u64, alone: &LockFile) -> Result<()> {
        self.raise(alone, |state| {
            state.floor = state.floor.max(base.saturating_add(1));
            state.reserved = state.reserved.max(state.floor);
        })
        .map(drop)
    }

    /// Keeps sweeps and breaks of this directory apart until it is dropped.
    pub(crate) fn alone(&self) -> Result<LockFile> {
        let mut file = LockFile::open(self.path.clone())?;
        let started = Instant::now();
        loop {
            if file.try_lock(LockKind::Exclusive)? {
                if file.is_current() {
                    return Ok(file);
                }
                file = LockFile::open(self.path.clone())?;
                continue;
            }
            if started.elapsed() > LIMIT {
                return Err(error(
                    ErrorKind::Unavailable,
                    format!(
                        "another process has had {} locked for {LIMIT:?}; is it stopped?",
                        self.path.display()
                    ),
                ));
            }
            // sleep: the disk owns the time
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Changes the directory's state, and remembers what it is. Returns the floor.
    fn raise(&self, file: &LockFile, change: impl FnOnce(&mut State)) -> Result<u64> {
        let before = State::read(file)?;
        let mut state = before.clone().unwrap_or_default();
        let boot = &ProcessRecord::of_this_process().boot_id;
        if state.boot != *boot {
            state.boot.clone_from(boot);
            state.floor = state.floor.max(state.reserved);
        }
        change(&mut state);
        if before.as_ref() != Some(&state) {
            state.sequence += 1;
            state.write(file)?;
            if before.is_none() {
                sync_directory(&self.path)?;
            }
        }
        self.floor.fetch_max(state.floor, Ordering::AcqRel);
        self.reserved.store(state.reserved, Ordering::Release);
        Ok(state.floor)
    }
}

/// The clock is a floor as well: numbers rise also when all files were deleted, as long as the
/// clock was not set back meanwhile. One beyond all numbers is none, for no lock could be granted
/// until it was set right.
fn next_base(before: u64, floor: u64, wall: u64) -> u64 {
    let next = before.saturating_add(1).max(floor);
    if wall > FencingNumber::MAX_BASE {
        next
    } else {
        next.max(wall)
    }
}

/// Microseconds of the wall clock since the start of 2024, which fit a fencing base until 2095.
///
/// No key is granted a million times in a second, so numbers never run ahead of this clock.
pub(crate) fn micros(now: SystemTime) -> u64 {
    const START_OF_2024: Duration = Duration::from_secs(1_704_067_200);
    let since = now.duration_since(UNIX_EPOCH + START_OF_2024);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// What the file says. It has two places, a block each, written in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    sequence: u64,
    floor: u64,
    reserved: u64,
    boot: String,
}

const MAGIC: [u8; 8] = *b"lockbase";
const PLACE_LEN: usize = 128;
const BLOCK: u64 = 4096;
const BOOT_AT: usize = 40;
const SUM_AT: usize = PLACE_LEN - 8;

impl State {
    fn read(file: &LockFile) -> Result<Option<Self>> {
        let mut newest: Option<Self> = None;
        for block in [0, BLOCK] {
            let mut bytes = [0; PLACE_LEN];
            let read = file.file().read_at(&mut bytes, block);
            let len = read.map_err(|source| failed("read", file.path(), source))?;
            let found = Self::decode(&bytes).filter(|_| len == PLACE_LEN);
            let known = newest.as_ref().map_or(0, |state| state.sequence);
            newest = found.filter(|state| state.sequence > known).or(newest);
        }
        Ok(newest)
    }

    fn write(&self, file: &LockFile) -> Result<()> {
        let written = file
            .file()
            .write_all_at(&self.encode(), self.sequence % 2 * BLOCK)
            .and_then(|()| file.file().sync_data());
        written.map_err(|source| failed("write to", file.path(), source))
    }

    fn encode(&self) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [self.sequence, self.floor, self.reserved];
        for (number, place) in numbers.iter().zip(bytes[8..32].chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let boot = self.boot.as_bytes();
        let len = boot.len().min(SUM_AT - BOOT_AT);
        bytes[32] = len as u8;
        bytes[BOOT_AT..BOOT_AT + len].copy_from_slice(&boot[..len]);
        let sum = checksum(&bytes[..SUM_AT]);
        bytes[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; PLACE_LEN]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes[..8] != MAGIC || number(SUM_AT)? != checksum(&bytes[..SUM_AT]) {
            return None;
        }
        let boot = bytes.get(BOOT_AT..BOOT_AT + usize::from(bytes[32]))?;
        Some(Self {
            sequence: number(8)?,
            floor: number(16)?,
            reserved: number(24)?,
            boot: String::from_utf8(boot.to_vec()).ok()?,
        })
    }
}

/// A new file is found after a power cut only when its directory was written, too.
fn sync_directory(file: &Path) -> Result<()> {
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed("write to", directory, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_a_floor_unless_it_is_far_off() {
        assert_eq!(next_base(5, 0, 3), 6);
        assert_eq!(next_base(5, 0, 9), 9);
        assert_eq!(next_base(5, 20, 9), 20);
        assert_eq!(next_base(5, 0, FencingNumber::MAX_BASE + 1), 6);
        assert_eq!(
            next_base(FencingNumber::MAX_BASE, 0, 9),
            FencingNumber::MAX_BASE + 1
        );
    }

    /// A directory, and the clock of a machine that has none: every boot starts in 1970.
    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }
    const NO_CLOCK: SystemTime = UNIX_EPOCH;

    /// As after a boot: another boot id stands in the file.
    fn reboot(directory: &Path) {
        let file = LockFile::open(directory.join(FILE)).unwrap();
        let mut state = State::read(&file).unwrap().unwrap();
        state.boot = "an earlier one".to_owned();
        state.sequence += 1;
        state.write(&file).unwrap();
    }

    #[test]
    fn numbers_rise_over_a_power_cut_without_a_clock() {
        let dir = directory();
        let mut last = 0;
        for _boot in 0..3 {
            let numbers = Numbers::new(dir.path());
            // The lock file's own count was lost with the power.
            let mut before = 0;
            for _ in 0..100 {
                before = numbers.next(before, NO_CLOCK).unwrap();
                assert!(before > last, "{before} came after {last}");
                last = before;
            }
            reboot(dir.path());
        }
    }

    #[test]
    fn no_base_is_drawn_that_is_not_reserved_on_the_disk() {
        let dir = directory();
        let numbers = Numbers::new(dir.path());
        let mut before = numbers.next(0, NO_CLOCK).unwrap();
        for _ in 0..5 {
            before = numbers.next(before + STEP - 3, NO_CLOCK).unwrap();
            let file = LockFile::open(dir.path().join(FILE)).unwrap();
            let state = State::read(&file).unwrap().unwrap();
            assert!(before < state.reserved);
        }
    }

    #[test]
    fn what_was_swept_is_behind_also_for_processes_that_read_before() {
        let dir = directory();
        let (early, late) = (Numbers::new(dir.path()), Numbers::new(dir.path()));
        let first = early.next(0, NO_CLOCK).unwrap();
        late.start_behind(first + 1000, &late.alone().unwrap())
            .unwrap();
        assert!(early.next(0, NO_CLOCK).unwrap() > first + 1000);
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_state_before() {
        let dir = directory();
        let numbers = Numbers::new(dir.path());
        numbers.next(0, NO_CLOCK).unwrap();
        let file = LockFile::open(dir.path().join(FILE)).unwrap();
        let before = State::read(&file).unwrap().unwrap();
        let mut torn = before.clone();
        torn.sequence += 1;
        torn.reserved = u64::MAX;
        let bytes = &torn.encode()[..60];
        file.file()
            .write_all_at(bytes, torn.sequence % 2 * BLOCK)
            .unwrap();
        assert_eq!(State::read(&file).unwrap().unwrap(), before);
    }
}
