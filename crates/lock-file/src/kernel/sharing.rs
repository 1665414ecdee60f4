//! Holders beside each other: shared ones, and permits.

use std::time::SystemTime;

use lock_core::host::LockKind;
use lock_core::{Fence, FencingNumber, LockKey, Permits, ReadVersion, Result, Slot};

use super::{Answer, Asker, Entry, Held, Kernel, Patience};
use crate::record::Discipline;
use crate::slots::Numbers;
use crate::writing::{holder_body, write_vacant};

/// How many shared holders of a key have a record for others to read.
const SHARED_RECORDS: u32 = 64;

impl Kernel {
    pub(super) fn lock_shared(&mut self, asker: Asker<'_>) -> Result<Answer> {
        if let Some(refusal) = self.lock_with(Discipline::Shared, asker.key)? {
            return Ok(refusal);
        }
        self.held = Held::Shared;
        Ok(Answer::Granted(self.share(asker)))
    }

    pub(super) fn lock_for_permits(
        &mut self,
        asker: Asker<'_>,
        permits: Permits,
    ) -> Result<Answer> {
        if let Some(refusal) = self.lock_with(Discipline::of(asker.request.mode), asker.key)? {
            return Ok(refusal);
        }
        self.held = Held::Permits;
        let answer = self.take_permits(asker, permits);
        if !matches!(answer, Ok(Answer::Granted(_))) {
            self.unlock();
        }
        answer
    }

    pub(super) fn enter_permit(
        &mut self,
        asker: Asker<'_>,
        permits: Permits,
        patience: Patience,
    ) -> Result<Answer> {
        self.in_turn(asker, patience, |kernel| {
            kernel.take_permits(asker, permits)
        })
    }

    /// What one more shared holder has, of those that share this process's kernel lock.
    pub(crate) fn share(&mut self, asker: Asker<'_>) -> Entry {
        let since = SystemTime::now();
        Entry {
            fence: Fence::Shared(self.number.map(ReadVersion)),
            slots: self.take_seat(asker, since),
            since,
        }
    }

    /// Leaves a shared holder's record for others to read. Holding does not depend on it.
    fn take_seat(&mut self, asker: Asker<'_>, since: SystemTime) -> Numbers {
        let described = self
            .slots
            .take(&self.names, 1, SHARED_RECORDS)
            .and_then(|taken| {
                let numbers = taken.unwrap_or_default();
                let body = holder_body(asker, since, None);
                let mut each = numbers.iter();
                each.try_for_each(|number| self.slots.describe(*number, &body))?;
                Ok(numbers)
            });
        described.unwrap_or_else(|error| {
            tracing::debug!(%error, "a shared holder's record could not be written");
            Numbers::new()
        })
    }

    pub(super) fn take_permits(&mut self, asker: Asker<'_>, permits: Permits) -> Result<Answer> {
        let taken = self
            .slots
            .take(&self.names, permits.count(), permits.of())?;
        let Some(numbers) = taken else {
            return Ok(Answer::Contended);
        };
        let since = SystemTime::now();
        let body = holder_body(asker, since, None);
        for number in &numbers {
            if let Err(error) = self.slots.describe(*number, &body) {
                self.slots.free(&numbers);
                return Err(error);
            }
        }
        Ok(Answer::Granted(Entry {
            fence: Fence::Permit(Slot(numbers[0])),
            slots: numbers,
            since,
        }))
    }

    /// Takes the kernel lock shared, under a discipline. `None`: taken.
    pub(super) fn lock_with(
        &mut self,
        discipline: Discipline,
        key: &LockKey,
    ) -> Result<Option<Answer>> {
        if !self.lock_current(LockKind::Shared)? {
            return Ok(Some(Answer::Contended));
        }
        let refusal = self.agree_on(discipline, key);
        if !matches!(refusal, Ok(None)) {
            self.unlock();
        }
        refusal
    }

    pub(super) fn agree_on(
        &mut self,
        discipline: Discipline,
        key: &LockKey,
    ) -> Result<Option<Answer>> {
        let Some(lock) = &mut self.lock else {
            return Ok(Some(Answer::Contended));
        };
        let head = lock.door()?.head;
        if head.discipline != discipline {
            // It binds if anybody else holds. The turn is ours, so nobody else comes in shared.
            if !lock.try_lock(LockKind::Exclusive)? {
                // A conversion that is refused may have given up what there was.
                let shared = lock.try_lock(LockKind::Shared)?;
                let binds = shared && head.discipline != Discipline::Unset;
                return Ok(Some(match binds {
                    true => Answer::Conflict(head.discipline),
                    false => Answer::Contended,
                }));
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
}
