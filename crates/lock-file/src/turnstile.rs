//! Who may ask: the turn.

use std::time::Duration;

use lock_core::Result;
use lock_core::clock::Instant;
use lock_core::host::{LockFile, LockKind};

use crate::key_file::KeyFile;
use crate::names::Names;
use crate::page::{Bell, RING_AT};

/// The turn of one key: the kernel's lock on a file of its own.
///
/// Whoever has it may look at the key's record and act on it, as one step: it is taken for the
/// microseconds of asking. A process that is refused and waits *keeps* it until it is granted, and
/// marks in the lock file that somebody is next: nobody else may enter then, so a stream of shared
/// holders starves no exclusive one, and a process that acquires in a loop starves no neighbour.
///
/// An exclusive acquire that finds the key free needs no turn, for the kernel's lock says all; it
/// only has to respect the mark.
///
/// After Courtois, Heymans and Parnas ("Concurrent control with readers and writers", 1971), whose
/// second solution holds new readers back in the same way.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    turn: Option<LockFile>,
    leads: bool,
}

/// How long to try for the turn of somebody who only asks, and may have been preempted.
const ASKING_LIMIT: Duration = Duration::from_micros(500);

impl Turnstile {
    /// The turn as it is on the disk, for somebody who does not wait: without a file if there is none.
    pub(crate) fn existing(names: &Names) -> Result<Self> {
        Ok(Self {
            turn: LockFile::open_existing(names.turn())?,
            leads: false,
        })
    }

    /// Whether nobody has ever asked in turn, so that there is no file.
    pub(crate) fn is_unused(&self) -> bool {
        self.turn.is_none()
    }

    /// Takes the turn, or has it already. `false`: another process has it.
    /// After `true`, call [`leave`](Self::leave), or [`lead`](Self::lead) to keep it.
    pub(crate) fn enter(&mut self, names: &Names, file: &KeyFile) -> Result<bool> {
        if self.leads {
            return Ok(true);
        }
        let started = Instant::now();
        loop {
            let mut turn = match self.turn.take() {
                Some(turn) => turn,
                None => LockFile::open(names.turn())?,
            };
            let locked = turn.try_lock(LockKind::Exclusive)?;
            if !turn.is_current() {
                continue;
            }
            self.turn = Some(turn);
            let asked = Instant::now().saturating_duration_since(started);
            if locked || file.somebody_is_next() || asked > ASKING_LIMIT {
                return Ok(locked);
            }
            std::thread::yield_now();
        }
    }

    /// Keeps the turn, for a process that was refused and waits.
    pub(crate) fn lead(&mut self, file: &KeyFile) -> Result<()> {
        // Again at each look: the lock file may have been replaced since the last.
        if !file.somebody_is_next() {
            file.set_next(true)?;
        }
        self.leads = true;
        Ok(())
    }

    /// Gives the turn back, if it is ours, and wakes who wants it.
    pub(crate) fn leave(&mut self, file: Option<&mut KeyFile>) {
        let led = std::mem::take(&mut self.leads);
        let Some(turn) = &mut self.turn else {
            return;
        };
        let Some(file) = file else {
            turn.unlock();
            return;
        };
        if led {
            // A mark that stays is found to be stale by the next one who looks.
            let _ = file.set_next(false);
        }
        turn.unlock();
        if file.ring(Bell::Turn) {
            // A wake-up that cannot be written costs its reader one backup poll.
            let _ = turn.set_byte(RING_AT as u64, 1);
        }
    }

    /// Whether another process is next. Asked because of a mark, which may be stale.
    pub(crate) fn others_lead(&mut self, names: &Names, file: &mut KeyFile) -> Result<bool> {
        if self.leads || !file.somebody_is_next() {
            return Ok(false);
        }
        let turn = match self.turn.take() {
            Some(turn) => Some(turn),
            None => LockFile::open_existing(names.turn())?,
        };
        let Some(mut turn) = turn else {
            return Ok(false);
        };
        let locked = turn.try_lock(LockKind::Exclusive)?;
        let current = turn.is_current();
        if !locked {
            self.turn = current.then_some(turn);
            return Ok(current);
        }
        // Whoever set the mark died; we have its turn, so nobody sets it again meanwhile.
        if current {
            file.set_next(false)?;
        }
        self.turn = Some(turn);
        self.leave(Some(file));
        Ok(false)
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// The turn's file. Whoever leads has its record in it.
    pub(crate) fn turn(&self) -> Option<&LockFile> {
        self.turn.as_ref()
    }
}
