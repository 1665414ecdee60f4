//! Who may ask: the gate that makes asking one atomic step, and the turn of the process that is
//! next.

use std::time::Duration;

use lock_core::Result;
use lock_core::clock::Instant;

use crate::names::Names;
use lock_core::host::{LockFile, LockKind};

/// The gate and the turn of one key.
///
/// **Gate.** Whoever asks for the lock of the key holds it, for microseconds. So a look at the
/// record and the grant that follows are one step.
///
/// **Turn.** A process that has to wait takes it, and keeps it until it is granted: nobody else may
/// ask then, so a stream of shared holders starves no exclusive one, and a process that acquires in
/// a loop starves no neighbour. The mark says that somebody may have the turn, so that asking
/// without contention does not cost a look at the turn itself.
///
/// After Courtois, Heymans and Parnas ("Concurrent control with readers and writers", 1971), whose
/// second solution holds new readers back in the same way.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    gate: Option<LockFile>,
    turn: Option<LockFile>,
    leads: bool,
}

/// Whether the caller waits for its turn or goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Asks once.
    None,
    /// Takes the turn and keeps it.
    Waits,
}

/// Where the gate file has the mark, and the byte that is written to wake waiters.
const MARK_AT: u64 = 0;
const WAKE_AT: u64 = 1;
const MARKED: u8 = b'w';

/// How long to try for the gate, whose holder may have been preempted.
const GATE_LIMIT: Duration = Duration::from_micros(500);

impl Turnstile {
    /// Asks to ask. `false`: it is another process's turn, or the gate was not free in time.
    /// After `true`, call [`close`](Self::close).
    pub(crate) fn enter(&mut self, names: &Names, patience: Patience) -> Result<bool> {
        if !self.leads {
            match patience {
                Patience::Waits if !self.lead(names)? => return Ok(false),
                Patience::None if self.others_wait(names)? => return Ok(false),
                _ => {}
            }
        }
        self.take_gate(names)
    }

    /// Takes the gate, whoever's turn it is: for changes that let nobody in.
    pub(crate) fn take_gate(&mut self, names: &Names) -> Result<bool> {
        let started = Instant::now();
        loop {
            let gate = self.gate(names)?;
            if gate.try_lock(LockKind::Exclusive)? {
                if gate.is_current() {
                    return Ok(true);
                }
                self.gate = None;
                continue;
            }
            if Instant::now().saturating_duration_since(started) > GATE_LIMIT {
                if !gate.is_current() {
                    self.gate = None;
                }
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    /// Lets the next one ask.
    pub(crate) fn close(&mut self) {
        if let Some(gate) = &mut self.gate {
            gate.unlock();
        }
    }

    /// Whether another process has the turn.
    pub(crate) fn others_wait(&mut self, names: &Names) -> Result<bool> {
        if self.leads || self.gate(names)?.byte(MARK_AT) != MARKED {
            return Ok(false);
        }
        let Some(mut turn) = self.take_or_open_turn(names)? else {
            return Ok(false);
        };
        if !turn.try_lock(LockKind::Exclusive)? {
            return Ok(turn.is_current());
        }
        // Whoever set the mark died; we have its turn, so nobody sets it again meanwhile.
        if turn.is_current() {
            self.gate(names)?.set_byte(MARK_AT, 0)?;
        }
        Ok(false)
    }

    /// Takes the turn. `false`: another process has it.
    fn lead(&mut self, names: &Names) -> Result<bool> {
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
            if !locked {
                return Ok(false);
            }
            // Invariant: the mark is set before the lock is asked for. Whoever releases the lock
            // after we were refused therefore sees it, and wakes us.
            let marked = self
                .gate(names)
                .and_then(|gate| gate.set_byte(MARK_AT, MARKED));
            self.leads = marked.is_ok();
            if let (Err(_), Some(turn)) = (&marked, &mut self.turn) {
                turn.unlock();
            }
            return marked.map(|()| true);
        }
    }

    /// Gives the turn back, if we have it, and wakes those who want it.
    pub(crate) fn stop_leading(&mut self) {
        if !std::mem::take(&mut self.leads) {
            return;
        }
        if let Some(gate) = &self.gate {
            // A mark that stays is found to be stale by the next one who looks.
            let _ = gate.set_byte(MARK_AT, 0);
        }
        if let Some(turn) = &mut self.turn {
            turn.unlock();
        }
        self.wake();
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// The turn's file, while we have it: it carries the record of who is next.
    pub(crate) fn turn(&self) -> Option<&LockFile> {
        self.turn.as_ref().filter(|_| self.leads)
    }

    /// Tells waiting processes that something was given back. Call it after the unlock.
    pub(crate) fn wake_waiting(&self) {
        let marked = |gate: &LockFile| gate.byte(MARK_AT) == MARKED;
        if !self.leads && self.gate.as_ref().is_some_and(marked) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(gate) = &self.gate {
            // A wake-up that cannot be written costs its reader one backup poll.
            let _ = gate.set_byte(WAKE_AT, 1);
        }
    }

    fn gate(&mut self, names: &Names) -> Result<&mut LockFile> {
        let gate = match self.gate.take() {
            Some(gate) => gate,
            None => LockFile::open(names.gate())?,
        };
        Ok(self.gate.insert(gate))
    }

    fn take_or_open_turn(&mut self, names: &Names) -> Result<Option<LockFile>> {
        match self.turn.take() {
            Some(turn) => Ok(Some(turn)),
            None => LockFile::open_existing(names.turn()),
        }
    }
}
