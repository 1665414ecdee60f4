//! What this process holds of one key, as the kernel and the other processes see it.

mod asking;
mod sharing;

use std::path::PathBuf;
use std::time::SystemTime;

use lock_core::host::{LockFile, LockKind};
use lock_core::{Fence, FencingNumber, Mode, OwnerToken, Result};

use crate::key_file::KeyFile;
use crate::names::Names;
use crate::page::Bell;
use crate::record::{Discipline, Head};
use crate::slots::{Numbers, Slots};
use crate::turnstile::Turnstile;
use crate::writing::{describe, holder_body, number_holder, write_vacant};

pub(crate) use asking::{Answer, Asker, Entry, Patience, Waits};

/// What this process holds of one key, as the kernel and the other processes see it.
///
/// An exclusive holder has the lock file's kernel lock exclusively; all shared holders of a process
/// have it shared once, and so have all its permit holders, who have slots besides. Which of the
/// two the holders of a shared kernel lock are stands in the record, as its discipline.
#[derive(Debug)]
pub(crate) struct Kernel {
    names: Names,
    lock: Option<KeyFile>,
    /// How often another lock file was opened.
    opened: u64,
    turnstile: Turnstile,
    /// Whose record the turn carries, as far as it is ours.
    shown: Option<OwnerToken>,
    slots: Slots,
    held: Held,
    /// The last exclusive number; current while anything is held.
    number: Option<FencingNumber>,
    /// How many holders of this process have passed the lock on without giving it up.
    passed_on: u32,
    /// What a thread that is refused may sleep on.
    waits_for: Option<Waits>,
}

/// What this process has of the lock file's kernel lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Exclusive,
    Shared,
    Permits,
}

/// How often a process passes the lock on among its own before it lets others in.
const PASS_ON_LIMIT: u32 = 16;

impl Kernel {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            lock: None,
            opened: 0,
            turnstile: Turnstile::default(),
            shown: None,
            slots: Slots::default(),
            held: Held::Nothing,
            number: None,
            passed_on: 0,
            waits_for: None,
        }
    }

    pub(crate) fn held(&self) -> Held {
        self.held
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The slots that this process has.
    pub(crate) fn slots(&self) -> Numbers {
        self.slots.numbers()
    }

    /// Whether this process is next. The turn's file then has a record of ours.
    pub(crate) fn leads(&self) -> bool {
        self.turnstile.leads()
    }

    /// What it waits for since it was refused.
    pub(crate) fn waits_for(&self) -> Option<&Waits> {
        self.waits_for.as_ref()
    }

    /// How often another lock file was opened: a watch on an earlier one tells nothing.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether a thread can sleep on this key's bells.
    pub(crate) fn can_sleep(&mut self) -> bool {
        self.open_current().is_ok_and(KeyFile::map)
    }

    /// Asks for a party that no party of this process is in the way of.
    pub(crate) fn enter(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        match (self.held, asker.request.mode) {
            (Held::Shared, Mode::Shared) => self.join(asker, patience),
            (Held::Permits, Mode::Permit(permits)) => self.enter_permit(asker, permits, patience),
            (Held::Exclusive, Mode::Exclusive) => self.pass_on(asker, patience),
            (Held::Nothing, _) => self.enter_anew(asker, patience),
            _ => {
                self.let_go();
                self.enter_anew(asker, patience)
            }
        }
    }

    /// One more shared holder of this process, unless another process waits.
    fn join(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        if self.others_lead()? {
            return match patience {
                Patience::None => Ok(Answer::Contended),
                Patience::Waits { .. } => self.in_turn(asker, patience, |kernel| {
                    Ok(Answer::Granted(kernel.share(asker)))
                }),
            };
        }
        Ok(Answer::Granted(self.share(asker)))
    }

    fn others_lead(&mut self) -> Result<bool> {
        match &mut self.lock {
            Some(lock) => self.turnstile.others_lead(&self.names, lock),
            None => Ok(false),
        }
    }

    /// From one exclusive holder of this process to the next, with a new number, as long as that
    /// is fair to the other processes.
    fn pass_on(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        let fair = self.passed_on < PASS_ON_LIMIT || !self.others_lead()?;
        if let Some(lock) = self.lock.as_ref().filter(|_| fair) {
            let head = lock.door()?.head;
            let entry = self.number(asker, head)?;
            // Invariant: looked at after the number was drawn. If the file was replaced before,
            // others may have lower numbers already, and this one is not used; if after, they draw
            // higher ones.
            if self.lock.as_mut().is_some_and(KeyFile::is_current) {
                self.passed_on += 1;
                return Ok(Answer::Granted(entry));
            }
        }
        self.let_go();
        self.enter_anew(asker, patience)
    }

    fn enter_anew(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        match asker.request.mode {
            Mode::Exclusive => {
                if !self.turnstile.leads()
                    && let Some(entry) = self.lock_free(asker)?
                {
                    return Ok(Answer::Granted(entry));
                }
                self.in_turn(asker, patience, |kernel| kernel.lock_exclusive(asker))
            }
            Mode::Shared => self.in_turn(asker, patience, |kernel| kernel.lock_shared(asker)),
            Mode::Permit(permits) => self.in_turn(asker, patience, |kernel| {
                kernel.lock_for_permits(asker, permits)
            }),
        }
    }

    /// Takes the lock exclusively if nobody holds it and nobody is next, without a turn.
    fn lock_free(&mut self, asker: Asker<'_>) -> Result<Option<Entry>> {
        if !self.lock_current(LockKind::Exclusive)? {
            return Ok(None);
        }
        let Some(lock) = &mut self.lock else {
            return Ok(None);
        };
        let checked = lock.door().and_then(|door| {
            let foreign = door.somebody_is_next && self.turnstile.others_lead(&self.names, lock)?;
            Ok((!foreign).then_some(door.head))
        });
        match checked {
            Ok(Some(head)) => self.hold(asker, head).map(Some),
            refused => {
                self.unlock();
                refused.map(|_| None)
            }
        }
    }

    fn lock_exclusive(&mut self, asker: Asker<'_>) -> Result<Answer> {
        if !self.lock_current(LockKind::Exclusive)? {
            return Ok(Answer::Contended);
        }
        let door = self.lock.as_ref().map(KeyFile::door).transpose();
        match door {
            Ok(Some(door)) => Ok(Answer::Granted(self.hold(asker, door.head)?)),
            refused => {
                self.unlock();
                refused.map(|_| Answer::Contended)
            }
        }
    }

    /// Makes the kernel lock, which was just taken exclusively, a numbered hold.
    fn hold(&mut self, asker: Asker<'_>, head: Head) -> Result<Entry> {
        let entry = self.number(asker, head);
        if entry.is_ok() {
            self.held = Held::Exclusive;
            self.passed_on = 0;
        } else {
            self.unlock();
        }
        entry
    }

    /// Draws the number of an exclusive holder, and writes down who it is.
    fn number(&mut self, asker: Asker<'_>, head: Head) -> Result<Entry> {
        let Some(lock) = &self.lock else {
            return Err(crate::error::not_held(asker.key));
        };
        let since = SystemTime::now();
        let numbers = &self.names.directory().numbers;
        let number = number_holder(lock, head, numbers, asker, since)?;
        self.number = Some(number);
        Ok(Entry {
            fence: Fence::Exclusive(number),
            slots: Numbers::new(),
            since,
        })
    }

    /// Asks as one step, in turn. Whoever waits says before each look that it does.
    fn in_turn(
        &mut self,
        asker: Asker<'_>,
        patience: Patience,
        ask: impl Fn(&mut Self) -> Result<Answer>,
    ) -> Result<Answer> {
        let had_turn = self.turnstile.leads();
        loop {
            if !self.turnstile.leads() || self.lock.is_none() {
                self.open_current()?;
            }
            let opened = self.opened;
            let Some(lock) = &self.lock else { continue };
            if !self.turnstile.enter(&self.names, lock)? {
                // Again, after having said that it waits.
                let seen = self.will_wait(Bell::Turn, patience)?;
                let Some(lock) = &self.lock else { continue };
                if patience == Patience::None || !self.turnstile.enter(&self.names, lock)? {
                    self.wait_for(Bell::Turn, seen);
                    return Ok(Answer::Contended);
                }
            }
            let seen = self.will_wait(Bell::Lock, patience)?;
            let answer = ask(self);
            if let (Ok(Answer::Contended), Patience::Waits { since, .. }) = (&answer, patience) {
                if self.opened != opened {
                    // Said on a file that nobody rings any more.
                    continue;
                }
                self.wait_for(Bell::Lock, seen);
                self.lead(asker, since, had_turn)?;
            } else {
                self.turnstile.leave(self.lock.as_mut());
                self.waits_for = None;
            }
            return answer;
        }
    }

    fn will_wait(&mut self, bell: Bell, patience: Patience) -> Result<u32> {
        match (patience, &mut self.lock) {
            (Patience::Waits { hears, .. }, Some(lock)) => lock.will_wait(bell, hears),
            _ => Ok(0),
        }
    }

    fn wait_for(&mut self, bell: Bell, seen: u32) {
        let map = self.lock.as_ref().and_then(|lock| lock.mapped().cloned());
        self.waits_for = Some(Waits { bell, seen, map });
    }

    /// Keeps the turn, and lets others read who is next.
    fn lead(&mut self, asker: Asker<'_>, since: SystemTime, had_turn: bool) -> Result<()> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        self.turnstile.lead(lock)?;
        // Another one may have become the head since the turn was taken.
        let attempt = asker.request.attempt;
        if had_turn && self.shown == Some(attempt) {
            return Ok(());
        }
        self.shown = Some(attempt);
        if let Some(turn) = self.turnstile.turn()
            && let Err(error) = describe(turn, &holder_body(asker, since, None))
        {
            tracing::debug!(%error, "the next waiter's record could not be written");
        }
        Ok(())
    }

    /// Takes the kernel lock of the file that the path leads to now.
    fn lock_current(&mut self, kind: LockKind) -> Result<bool> {
        loop {
            let (lock, granted, is_current) = match self.take_open() {
                Some(mut lock) => {
                    let granted = lock.try_lock(kind)?;
                    let is_current = lock.is_current();
                    (lock, granted, is_current)
                }
                None => {
                    let (path, may_map) = self.next_file();
                    let (lock, granted) = KeyFile::open_and_try_lock(path, may_map, kind)?;
                    let is_current = lock.was_linked();
                    (lock, granted, is_current)
                }
            };
            // Also after a refusal: the one who holds a replaced file is in nobody's way.
            if is_current {
                self.lock = Some(lock);
                return Ok(granted);
            }
        }
    }

    fn take_open(&mut self) -> Option<KeyFile> {
        let mut lock = self.lock.take()?;
        // It pays from the second use on.
        lock.map();
        Some(lock)
    }

    /// The lock file to open, and whether it may be mapped.
    fn next_file(&mut self) -> (PathBuf, bool) {
        self.opened += 1;
        (self.names.lock(), self.names.directory().may_map)
    }

    /// Opens the file that the path leads to now, unless it is open.
    fn open_current(&mut self) -> Result<&mut KeyFile> {
        loop {
            let mut lock = match self.take_open() {
                Some(lock) => lock,
                None => {
                    let (path, may_map) = self.next_file();
                    KeyFile::open(path, may_map)?
                }
            };
            // What is held stays open; whether it is current is looked at elsewhere.
            if self.held != Held::Nothing || lock.is_current() {
                return Ok(self.lock.insert(lock));
            }
        }
    }

    /// Turns the exclusive lock into a shared one. Nobody comes in between: where the kernel does
    /// it in two steps and somebody did, it is lost.
    pub(crate) fn downgrade(&mut self, asker: Asker<'_>) -> Result<Entry> {
        let Some(lock) = &mut self.lock else {
            return Err(crate::error::not_held(asker.key));
        };
        let head = lock.door()?.head;
        write_vacant(lock, head, Discipline::Shared, asker.key)?;
        if !lock.try_lock(LockKind::Shared)? {
            // Without the file, the next look at what is held finds it lost.
            self.lock = None;
            return Err(crate::error::not_held(asker.key));
        }
        self.held = Held::Shared;
        let entry = self.share(asker);
        // Shared holders elsewhere may come in now.
        self.ring_lock();
        Ok(entry)
    }

    /// Writes the record anew, for a holder that changed.
    pub(crate) fn describe(&self, asker: Asker<'_>, entry: &Entry) -> Result<()> {
        match (entry.fence, &self.lock) {
            (Fence::Exclusive(number), Some(lock)) if self.held == Held::Exclusive => {
                let mut head = lock.door()?.head;
                head.sequence += 1;
                lock.write(&head, &holder_body(asker, entry.since, Some(number)))
            }
            _ => {
                let body = holder_body(asker, entry.since, None);
                let mut slots = entry.slots.iter();
                slots.try_for_each(|number| self.slots.describe(*number, &body))
            }
        }
    }

    /// Gives back the slots of a permit holder that leaves.
    pub(crate) fn free_slots(&mut self, numbers: &[u32]) {
        if !numbers.is_empty() {
            self.slots.free(numbers);
            self.ring_lock();
        }
    }

    /// Gives everything back, and tells those who wait.
    pub(crate) fn let_go(&mut self) {
        self.unlock();
    }

    fn unlock(&mut self) {
        self.slots.free_all();
        self.held = Held::Nothing;
        if let Some(lock) = &mut self.lock {
            lock.unlock();
        }
    }

    fn ring_lock(&mut self) {
        if let Some(lock) = &mut self.lock {
            lock.ring_lock();
        }
    }

    /// Gives the turn back: nobody here waits for other processes.
    pub(crate) fn stop_waiting(&mut self) {
        self.waits_for = None;
        if self.turnstile.leads() {
            self.turnstile.leave(self.lock.as_mut());
        }
    }

    /// What was deleted or replaced from outside while it was held.
    pub(crate) fn damage(&mut self) -> Damage {
        self.damage_by(KeyFile::is_linked, LockFile::is_linked)
    }

    /// What was deleted, replaced or moved away: a look that costs more.
    pub(crate) fn any_damage(&mut self) -> Damage {
        self.damage_by(KeyFile::is_current, LockFile::is_current)
    }

    fn damage_by(
        &mut self,
        lock_is_there: impl Fn(&mut KeyFile) -> bool,
        slot_is_there: impl Fn(&LockFile) -> bool,
    ) -> Damage {
        if self.held == Held::Nothing {
            return Damage::None;
        }
        if !self.lock.as_mut().is_some_and(lock_is_there) {
            return Damage::Lock;
        }
        match self.slots.lost(slot_is_there) {
            numbers if numbers.is_empty() => Damage::None,
            numbers => Damage::Slots(numbers),
        }
    }
}

/// What was deleted or replaced from outside.
#[derive(Debug)]
pub(crate) enum Damage {
    None,
    /// Everything that this process holds of the key.
    Lock,
    Slots(Numbers),
}
