//! What this process holds of one key, as the kernel and the other processes see it.

use std::time::SystemTime;

use lock_core::{
    Fence, FencingNumber, LockKey, Mode, OwnerToken, Permits, ReadVersion, Request, Result, Slot,
};

use crate::names::Names;
use crate::record::{self, Discipline};
use crate::slots::{Numbers, Slots};
use crate::turnstile::{Patience, Turnstile};
use crate::writing::{describe, holder_body, number_holder, write_vacant};
use lock_core::host::{LockFile, LockKind};

/// What this process holds of one key, as the kernel and the other processes see it.
///
/// An exclusive holder has the lock file's kernel lock exclusively; all shared holders of a process
/// have it shared once, and so have all its permit holders, who have slots besides. Which of the
/// two the holders of a shared kernel lock are stands in the record, as its discipline.
#[derive(Debug)]
pub(crate) struct Kernel {
    names: Names,
    lock: Option<LockFile>,
    turnstile: Turnstile,
    /// Whose record the turn carries, as far as it is ours.
    shown: Option<OwnerToken>,
    slots: Slots,
    held: Held,
    /// The last exclusive number; current while anything is held.
    number: Option<FencingNumber>,
    /// How many holders of this process have passed the lock on without giving it up.
    passed_on: u32,
}

/// What this process has of the lock file's kernel lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Exclusive,
    Shared,
    Permits,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) key: &'a LockKey,
    pub(crate) request: &'a Request,
    /// Since when it waits or holds.
    pub(crate) since: SystemTime,
}

/// What the other processes say.
#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Entry),
    Contended,
    /// Others hold it in a mode that can never take turns with this one.
    Conflict(Discipline),
}

/// What a holder has.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) fence: Fence,
    pub(crate) slots: Numbers,
}

impl Entry {
    fn without_slots(fence: Fence) -> Self {
        Self {
            fence,
            slots: Numbers::new(),
        }
    }
}

/// How often a process passes the lock on among its own before it lets others in.
const PASS_ON_LIMIT: u32 = 16;

/// How many shared holders of a key have a record for others to read.
const SHARED_RECORDS: u32 = 64;

impl Kernel {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            lock: None,
            turnstile: Turnstile::default(),
            shown: None,
            slots: Slots::default(),
            held: Held::Nothing,
            number: None,
            passed_on: 0,
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

    /// Asks for a party that no party of this process is in the way of.
    pub(crate) fn enter(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        match (self.held, asker.request.mode) {
            (Held::Shared, Mode::Shared) => self.join(asker),
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
    fn join(&mut self, asker: Asker<'_>) -> Result<Answer> {
        if self.turnstile.others_wait(&self.names)? {
            return Ok(Answer::Contended);
        }
        Ok(Answer::Granted(self.share(asker)))
    }

    /// From one exclusive holder of this process to the next, with a new number, as long as that
    /// is fair to the other processes.
    fn pass_on(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        let fair = self.passed_on < PASS_ON_LIMIT || !self.turnstile.others_wait(&self.names)?;
        if let Some(lock) = self.lock.as_ref().filter(|_| fair) {
            let number = number_holder(lock, asker)?;
            // Invariant: looked at after the number was drawn, for this is outside the gate. If the
            // file was replaced before, others may have lower numbers already, and this one is not
            // used; if after, they draw higher ones.
            if lock.is_current() {
                self.number = Some(number);
                self.passed_on += 1;
                let fence = Fence::Exclusive(number);
                return Ok(Answer::Granted(Entry::without_slots(fence)));
            }
        }
        self.let_go();
        self.enter_anew(asker, patience)
    }

    fn enter_anew(&mut self, asker: Asker<'_>, patience: Patience) -> Result<Answer> {
        self.through_turnstile(asker, patience, |kernel| match asker.request.mode {
            Mode::Exclusive => kernel.lock_exclusive(asker),
            Mode::Shared => kernel.lock_shared(asker),
            Mode::Permit(permits) => {
                match kernel.lock_with(Discipline::of(asker.request.mode), asker.key)? {
                    None => {
                        kernel.held = Held::Permits;
                        let answer = kernel.take_permits(asker, permits);
                        if !matches!(answer, Ok(Answer::Granted(_))) {
                            kernel.unlock();
                        }
                        answer
                    }
                    Some(refusal) => Ok(refusal),
                }
            }
        })
    }

    fn enter_permit(
        &mut self,
        asker: Asker<'_>,
        permits: Permits,
        patience: Patience,
    ) -> Result<Answer> {
        self.through_turnstile(asker, patience, |kernel| {
            kernel.take_permits(asker, permits)
        })
    }

    fn through_turnstile(
        &mut self,
        asker: Asker<'_>,
        patience: Patience,
        ask: impl FnOnce(&mut Self) -> Result<Answer>,
    ) -> Result<Answer> {
        let had_turn = self.turnstile.leads();
        if !self.turnstile.enter(&self.names, patience)? {
            return Ok(Answer::Contended);
        }
        let answer = ask(self);
        self.turnstile.close();
        match &answer {
            Ok(Answer::Granted(_)) => self.turnstile.stop_leading(),
            Ok(Answer::Contended) if patience == Patience::Waits => {
                // Another one may have become the head since the turn was taken.
                let attempt = asker.request.attempt;
                if !had_turn || self.shown != Some(attempt) {
                    self.shown = Some(attempt);
                    self.show_next(asker);
                }
            }
            _ => {}
        }
        answer
    }

    /// Lets others read who is next.
    fn show_next(&self, asker: Asker<'_>) {
        if let Some(turn) = self.turnstile.turn()
            && let Err(error) = describe(turn, asker)
        {
            tracing::debug!(%error, "the next waiter's record could not be written");
        }
    }

    fn lock_exclusive(&mut self, asker: Asker<'_>) -> Result<Answer> {
        if !self.lock_current(LockKind::Exclusive)? {
            return Ok(Answer::Contended);
        }
        let numbered = self.lock.as_ref().map(|lock| number_holder(lock, asker));
        match numbered {
            Some(Ok(number)) => {
                self.held = Held::Exclusive;
                self.number = Some(number);
                self.passed_on = 0;
                let fence = Fence::Exclusive(number);
                Ok(Answer::Granted(Entry::without_slots(fence)))
            }
            Some(Err(error)) => {
                self.unlock();
                Err(error)
            }
            None => Ok(Answer::Contended),
        }
    }

    fn lock_shared(&mut self, asker: Asker<'_>) -> Result<Answer> {
        if let Some(refusal) = self.lock_with(Discipline::Shared, asker.key)? {
            return Ok(refusal);
        }
        self.held = Held::Shared;
        Ok(Answer::Granted(self.share(asker)))
    }

    /// What one more shared holder has, of those that share this process's kernel lock.
    pub(crate) fn share(&mut self, asker: Asker<'_>) -> Entry {
        Entry {
            fence: Fence::Shared(self.number.map(ReadVersion)),
            slots: self.take_seat(asker),
        }
    }

    /// Leaves a shared holder's record for others to read. Holding does not depend on it.
    fn take_seat(&mut self, asker: Asker<'_>) -> Numbers {
        let described = self
            .slots
            .take(&self.names, 1, SHARED_RECORDS)
            .and_then(|taken| {
                let numbers = taken.unwrap_or_default();
                let body = holder_body(asker, None);
                let mut each = numbers.iter();
                each.try_for_each(|number| self.slots.describe(*number, &body))?;
                Ok(numbers)
            });
        described.unwrap_or_else(|error| {
            tracing::debug!(%error, "a shared holder's record could not be written");
            Numbers::new()
        })
    }

    fn take_permits(&mut self, asker: Asker<'_>, permits: Permits) -> Result<Answer> {
        let taken = self
            .slots
            .take(&self.names, permits.count(), permits.of())?;
        let Some(numbers) = taken else {
            return Ok(Answer::Contended);
        };
        let body = holder_body(asker, None);
        for number in &numbers {
            if let Err(error) = self.slots.describe(*number, &body) {
                self.slots.free(&numbers);
                return Err(error);
            }
        }
        Ok(Answer::Granted(Entry {
            fence: Fence::Permit(Slot(numbers[0])),
            slots: numbers,
        }))
    }

    /// Takes the kernel lock shared, under a discipline. `None`: taken.
    fn lock_with(&mut self, discipline: Discipline, key: &LockKey) -> Result<Option<Answer>> {
        if !self.lock_current(LockKind::Shared)? {
            return Ok(Some(Answer::Contended));
        }
        let refusal = self.agree_on(discipline, key);
        if !matches!(refusal, Ok(None)) {
            self.unlock();
        }
        refusal
    }

    fn agree_on(&mut self, discipline: Discipline, key: &LockKey) -> Result<Option<Answer>> {
        let Some(lock) = &mut self.lock else {
            return Ok(Some(Answer::Contended));
        };
        let head = record::read_head(lock.file(), lock.path())?;
        if head.discipline != discipline {
            // It binds if anybody else holds. The gate is ours, so nobody comes in between.
            if !lock.try_lock(LockKind::Exclusive)? {
                return Ok(Some(Answer::Conflict(head.discipline)));
            }
            write_vacant(lock, head, discipline, key)?;
            if !lock.try_lock(LockKind::Shared)? {
                return Ok(Some(Answer::Contended));
            }
        }
        self.number = (head.base > 0)
            .then(|| FencingNumber::from_base(head.base))
            .flatten();
        Ok(None)
    }

    /// Takes the kernel lock of the file that the path leads to now.
    fn lock_current(&mut self, kind: LockKind) -> Result<bool> {
        loop {
            let mut lock = match self.lock.take() {
                Some(lock) => lock,
                None => LockFile::open(self.names.lock())?,
            };
            let locked = lock.try_lock(kind)?;
            // Also after a refusal: the one who holds a replaced file is in nobody's way.
            if lock.is_current() {
                self.lock = Some(lock);
                return Ok(locked);
            }
        }
    }

    /// Turns the exclusive lock into a shared one, while nobody can come in between. `None`: ask
    /// again, the gate was not free.
    pub(crate) fn downgrade(&mut self, asker: Asker<'_>) -> Result<Option<Entry>> {
        if !self.turnstile.take_gate(&self.names)? {
            return Ok(None);
        }
        let outcome = self.downgrade_in_gate(asker);
        self.turnstile.close();
        // Shared holders elsewhere may come in now.
        self.turnstile.wake_waiting();
        outcome.map(Some)
    }

    fn downgrade_in_gate(&mut self, asker: Asker<'_>) -> Result<Entry> {
        let Some(lock) = &mut self.lock else {
            return Err(crate::error::not_held(asker.key));
        };
        let head = record::read_head(lock.file(), lock.path())?;
        write_vacant(lock, head, Discipline::Shared, asker.key)?;
        // The kernel may drop the exclusive lock before it gives the shared one, but nobody asks
        // for either without the gate.
        if !lock.try_lock(LockKind::Shared)? {
            // A program that knows nothing of the gate has it now: without the file, the next look
            // at what is held finds it lost.
            self.lock = None;
            return Err(crate::error::not_held(asker.key));
        }
        self.held = Held::Shared;
        Ok(self.share(asker))
    }

    /// Writes the record anew, for a holder that changed.
    pub(crate) fn describe(&self, asker: Asker<'_>, entry: &Entry) -> Result<()> {
        match (entry.fence, &self.lock) {
            (Fence::Exclusive(number), Some(lock)) if self.held == Held::Exclusive => {
                let mut head = record::read_head(lock.file(), lock.path())?;
                head.sequence += 1;
                let body = holder_body(asker, Some(number));
                record::write(lock.file(), lock.path(), &head, &body)
            }
            _ => {
                let body = holder_body(asker, None);
                let mut slots = entry.slots.iter();
                slots.try_for_each(|number| self.slots.describe(*number, &body))
            }
        }
    }

    /// Gives back the slots of a permit holder that leaves.
    pub(crate) fn free_slots(&mut self, numbers: &[u32]) {
        if !numbers.is_empty() {
            self.slots.free(numbers);
            self.turnstile.wake_waiting();
        }
    }

    /// Gives everything back, and tells those who wait.
    pub(crate) fn let_go(&mut self) {
        self.unlock();
        self.turnstile.wake_waiting();
    }

    fn unlock(&mut self) {
        self.slots.free_all();
        if let Some(lock) = &mut self.lock {
            lock.unlock();
        }
        self.held = Held::Nothing;
    }

    /// Gives the turn back: nobody here waits for other processes.
    pub(crate) fn stop_waiting(&mut self) {
        self.turnstile.stop_leading();
    }

    /// What was deleted or replaced from outside while it was held.
    pub(crate) fn damage(&self) -> Damage {
        if self.held == Held::Nothing {
            return Damage::None;
        }
        if !self.lock.as_ref().is_some_and(LockFile::is_current) {
            return Damage::Lock;
        }
        match self.slots.lost() {
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
