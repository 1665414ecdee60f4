//! One key in this process: its queue, and what the process holds of it.

mod competing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use lock_core::{
    Fence, Grant, KeyQueue, LockKey, Mode, OwnerId, OwnerToken, Refusal, Request, Result, Validity,
};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::contend::KeyWatch;
use crate::error::{abandoned, mode_conflict, not_held};
use crate::kernel::{Answer, Asker, Damage, Held, Kernel, Patience};
use crate::names::Names;
use crate::record::Discipline;
use crate::seat::{Aftermath, Hold, Seat, waiting_party};

use competing::Contender;
pub(crate) use competing::Looks;

/// One key in this process. All its waiters stand in one queue, and only the head of it competes
/// with other processes.
#[derive(Debug)]
pub(crate) struct KeyCell {
    key: LockKey,
    /// Tells the task that competes that there is something new.
    pub(crate) nudge: Notify,
    state: Mutex<KeyState>,
}

/// The inside of a [`KeyCell`], under its lock.
///
/// System calls are made under it; none of them waits.
#[derive(Debug)]
pub(crate) struct KeyState {
    queue: KeyQueue<Seat>,
    kernel: Kernel,
    /// Another process is in the way of the head.
    contends: bool,
    contender: Contender,
    /// What the contender hears by.
    watch: Option<Arc<KeyWatch>>,
    /// Taken out of the table; whoever still has it looks there again.
    retired: bool,
}

impl KeyCell {
    pub(crate) fn new(key: LockKey, names: Names) -> Self {
        Self {
            key,
            nudge: Notify::new(),
            state: Mutex::new(KeyState {
                queue: KeyQueue::new(),
                kernel: Kernel::new(names),
                contends: false,
                contender: Contender::Nobody,
                watch: None,
                retired: false,
            }),
        }
    }

    pub(crate) fn key(&self) -> &LockKey {
        &self.key
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, KeyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its state, unless somebody uses it right now.
    pub(crate) fn try_state(&self) -> Option<MutexGuard<'_, KeyState>> {
        self.state.try_lock().ok()
    }
}

impl KeyState {
    /// Asks once. `None`: contended.
    pub(crate) fn try_enter(&mut self, key: &LockKey, request: &Request) -> Result<Option<Grant>> {
        if let Some(grant) = self.granted(request.attempt) {
            return Ok(Some(grant));
        }
        match self.queue.admits(request.mode, request.priority) {
            Err(Refusal::Conflict(other)) => {
                return Err(mode_conflict(key, request.mode, Some(other)));
            }
            Err(Refusal::Contended) => return Ok(None),
            Ok(()) => {}
        }
        let asker = Asker { key, request };
        match self.kernel.enter(asker, Patience::None)? {
            Answer::Contended => Ok(None),
            Answer::Conflict(discipline) => Err(foreign_conflict(key, request.mode, discipline)),
            Answer::Granted(entry) => {
                let mut party = waiting_party(request, entry.since, None);
                let grant = party.data.hold(request.attempt, entry);
                self.queue.enter(party);
                Ok(Some(grant))
            }
        }
    }

    /// Ends an attempt in any state. Says whether it held until now.
    pub(crate) fn leave(&mut self, key: &LockKey, attempt: OwnerToken) -> (bool, Aftermath) {
        let damage = self.kernel.damage();
        let mut lost = self.end_what_is_gone(damage);
        let is_holder = self.queue.holder_mut(attempt).is_some();
        let nobody_waits_here = self.queue.head().is_none();
        if is_holder && nobody_waits_here && self.kernel.held() == Held::Exclusive {
            // Before the rest, so that the process that is next wakes up meanwhile.
            self.kernel.let_go();
        }
        let (held, mut aftermath) = match self.queue.withdraw(attempt) {
            None if lost.is_empty() => (false, Aftermath::default()),
            None => (false, self.pump(key, Looks::InPassing)),
            Some(party) => {
                let held = match party.data.held {
                    None => false,
                    Some(hold) => {
                        self.kernel.free_slots(&hold.entry.slots);
                        hold.validity.loss().is_none()
                    }
                };
                // An exclusive lock is kept for a moment: the next one here may take it over.
                let is_shared = matches!(self.kernel.held(), Held::Shared | Held::Permits);
                if is_shared && self.queue.holders().next().is_none() {
                    self.kernel.let_go();
                }
                let mut aftermath = self.pump(key, Looks::InPassing);
                if let Some(place) = party.data.place {
                    aftermath.wakers.extend(place.give(Err(abandoned())));
                }
                (held, aftermath)
            }
        };
        aftermath.lost.append(&mut lost);
        (held, aftermath)
    }

    /// Takes one attempt's hold away. Returns whether it held.
    pub(crate) fn revoke(&mut self, key: &LockKey, attempt: OwnerToken) -> (bool, Aftermath) {
        let held = self.queue.holder_mut(attempt).and_then(|party| {
            let hold = party.data.held.as_ref()?;
            Some(hold.validity.clone())
        });
        let Some(validity) = held else {
            return (false, Aftermath::default());
        };
        let (_, mut aftermath) = self.leave(key, attempt);
        aftermath.lost.push(validity);
        (true, aftermath)
    }

    /// Looks whether files were deleted, replaced or moved while they were held, and ends those holds.
    pub(crate) fn check(&mut self, key: &LockKey) -> Aftermath {
        let damage = self.kernel.any_damage();
        let lost = self.end_what_is_gone(damage);
        if lost.is_empty() {
            return Aftermath::default();
        }
        let mut aftermath = self.pump(key, Looks::InPassing);
        aftermath.lost = lost;
        aftermath
    }

    fn end_what_is_gone(&mut self, damage: Damage) -> SmallVec<[Validity; 1]> {
        let hit = |hold: &Hold| match &damage {
            Damage::None => false,
            Damage::Lock => true,
            Damage::Slots(numbers) => hold.entry.slots.iter().any(|slot| numbers.contains(slot)),
        };
        if matches!(damage, Damage::None) {
            return SmallVec::new();
        }
        let attempts: Vec<OwnerToken> = self
            .queue
            .holders()
            .filter(|party| party.data.held.as_ref().is_some_and(hit))
            .map(|party| party.attempt)
            .collect();
        let mut lost = SmallVec::new();
        for attempt in attempts {
            if let Some(hold) = self.queue.withdraw(attempt).and_then(|p| p.data.held) {
                self.kernel.free_slots(&hold.entry.slots);
                lost.push(hold.validity);
            }
        }
        if self.queue.holders().next().is_none() {
            self.kernel.let_go();
        }
        lost
    }

    /// Exclusive to shared.
    pub(crate) fn downgrade(
        &mut self,
        key: &LockKey,
        attempt: OwnerToken,
    ) -> Result<(Grant, Aftermath)> {
        let holder = self.queue.holder_mut(attempt);
        let Some(hold) = holder.and_then(|party| party.data.held.clone()) else {
            return Err(not_held(key));
        };
        if !matches!(hold.entry.fence, Fence::Exclusive(_)) {
            return Ok((hold.grant(attempt), Aftermath::default()));
        }
        // Asked first, so that nothing has changed when somebody waits for permits.
        if let Err(Refusal::Conflict(other)) = self.queue.admits(Mode::Shared, 0) {
            return Err(mode_conflict(key, Mode::Shared, Some(other)));
        }
        let Some(party) = self.queue.holder_mut(attempt) else {
            return Err(not_held(key));
        };
        let seat = &mut party.data;
        seat.request.mode = Mode::Shared;
        let asker = Asker {
            key,
            request: &seat.request,
        };
        let entry = match self.kernel.downgrade(asker) {
            Ok(entry) => entry,
            Err(error) => {
                seat.request.mode = Mode::Exclusive;
                return Err(error);
            }
        };
        let hold = Hold { entry, ..hold };
        let grant = hold.grant(attempt);
        seat.held = Some(hold);
        Ok((grant, self.admit_after_downgrade(key, attempt)))
    }

    /// The shared ones at the head come in with the one that became shared.
    fn admit_after_downgrade(&mut self, key: &LockKey, attempt: OwnerToken) -> Aftermath {
        let mut wakers: SmallVec<[Waker; 2]> = SmallVec::new();
        let kernel = &mut self.kernel;
        let admitted = self.queue.downgrade(attempt, |party| {
            let seat = &mut party.data;
            let entry = kernel.share(Asker {
                key,
                request: &seat.request,
            });
            let grant = seat.hold(party.attempt, entry);
            let place = seat.place.take();
            wakers.extend(place.and_then(|place| place.give(Ok(Some(grant)))));
        });
        debug_assert!(matches!(admitted, Ok(Some(()))));
        let mut aftermath = self.pump(key, Looks::InPassing);
        aftermath.wakers.append(&mut wakers);
        aftermath
    }

    /// The hold now belongs to another owner.
    pub(crate) fn transfer(
        &mut self,
        key: &LockKey,
        attempt: OwnerToken,
        owner: OwnerId,
    ) -> Result<Grant> {
        let Some(party) = self.queue.holder_mut(attempt) else {
            return Err(not_held(key));
        };
        let seat = &mut party.data;
        let Some(hold) = &seat.held else {
            return Err(not_held(key));
        };
        let before = seat.request.owner.replace(owner);
        let asker = Asker {
            key,
            request: &seat.request,
        };
        if let Err(error) = self.kernel.describe(asker, &hold.entry) {
            seat.request.owner = before;
            return Err(error);
        }
        Ok(hold.grant(attempt))
    }

    /// The grant of an attempt that holds.
    pub(crate) fn granted(&mut self, attempt: OwnerToken) -> Option<Grant> {
        let holder = self.queue.holder_mut(attempt)?;
        holder.data.held.as_ref().map(|hold| hold.grant(attempt))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_idle() && self.contender == Contender::Nobody
    }

    pub(crate) fn holds(&self) -> bool {
        self.kernel.held() != Held::Nothing
    }

    pub(crate) fn queue(&self) -> &KeyQueue<Seat> {
        &self.queue
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(crate) fn retire(&mut self) {
        self.retired = true;
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired
    }
}

fn foreign_conflict(key: &LockKey, wanted: Mode, discipline: Discipline) -> lock_core::Error {
    mode_conflict(key, wanted, discipline.example())
}
