//! The waiters of a key in this process, and who of them competes with other processes.

use std::sync::Arc;
use std::time::SystemTime;

use lock_core::{LockKey, OwnerToken, Refusal, Request, Result, Turn};

use super::{KeyState, foreign_conflict};
use crate::contend::KeyWatch;
use crate::error::mode_conflict;
use crate::kernel::{Answer, Asker, Held, Patience};
use crate::key_file::Hears;
use crate::seat::{Aftermath, ForTask, Place, waiting_party};

/// Who competes with other processes for the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Contender {
    #[default]
    Nobody,
    /// A task on the I/O thread. It stays for a moment when there is nothing to compete for.
    Task,
    /// The thread that waits for this attempt: whoever wakes it wakes the new holder directly.
    Thread(OwnerToken),
}

impl Contender {
    fn hears(self) -> Option<Hears> {
        match self {
            Self::Nobody => None,
            Self::Task => Some(Hears::ByFile),
            Self::Thread(_) => Some(Hears::Asleep),
        }
    }
}

/// Who looks whether the head can enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Somebody who passes by, and leaves competing to the contender.
    InPassing,
    /// The task that competes, or the thread of this attempt, if they do.
    Task,
    Thread(OwnerToken),
}

impl KeyState {
    /// Queues an attempt and lets it compete. The place that it returns is filled when it is over.
    pub(crate) fn enqueue(
        &mut self,
        key: &LockKey,
        request: &Request,
    ) -> Result<(Place, Aftermath)> {
        if let Some(grant) = self.granted(request.attempt) {
            let place = Place::default();
            let nobody = place.give(Ok(Some(grant)));
            debug_assert!(nobody.is_none());
            return Ok((place, Aftermath::default()));
        }
        if let Some(Some(place)) = self.queue.waiter(request.attempt).map(|w| &w.data.place) {
            return Ok((Arc::clone(place), Aftermath::default()));
        }
        if let Err(Refusal::Conflict(other)) = self.queue.admits(request.mode, request.priority) {
            return Err(mode_conflict(key, request.mode, Some(other)));
        }
        let place = Place::default();
        let party = waiting_party(request, SystemTime::now(), Some(Arc::clone(&place)));
        party.data.parks.set(lock_core::parking::parks());
        self.queue.enqueue(party);
        let head = self.queue.head().map(|head| head.attempt);
        if self.contends && head != Some(request.attempt) {
            // Nobody can enter before the head, which has asked already.
            return Ok((place, Aftermath::default()));
        }
        Ok((place, self.pump(key, Looks::Thread(request.attempt))))
    }

    /// Lets in who can enter now, asking the other processes for each.
    pub(crate) fn pump(&mut self, key: &LockKey, looks: Looks) -> Aftermath {
        let mut aftermath = Aftermath::default();
        let may_ask = !self.contends || self.competes(looks);
        let mut blocked = false;
        let (kernel, contender) = (&mut self.kernel, self.contender);
        self.queue.admit_heads(|party| {
            if !may_ask {
                blocked = true;
                return Turn::Stay;
            }
            let seat = &mut party.data;
            let hears = contender.hears().unwrap_or_else(|| seat.hears(kernel));
            let asker = Asker {
                key,
                request: &seat.request,
            };
            let since = seat.since;
            let (outcome, turn) = match kernel.enter(asker, Patience::Waits { hears, since }) {
                Ok(Answer::Contended) => {
                    blocked = true;
                    return Turn::Stay;
                }
                Ok(Answer::Granted(entry)) => {
                    let grant = seat.hold(party.attempt, entry);
                    (Ok(Some(grant)), Turn::Enter)
                }
                Ok(Answer::Conflict(discipline)) => {
                    let error = foreign_conflict(key, party.mode, discipline);
                    (Err(error), Turn::Leave)
                }
                Err(error) => (Err(error), Turn::Leave),
            };
            let waker = seat.place.take().and_then(|place| place.give(outcome));
            aftermath.wakers.extend(waker);
            turn
        });
        if !blocked {
            self.kernel.stop_waiting();
        }
        if self.queue.holders().next().is_none() && self.kernel.held() != Held::Nothing {
            self.kernel.let_go();
        }
        self.contends = blocked;
        self.choose_contender(looks, &mut aftermath);
        aftermath
    }

    fn competes(&self, looks: Looks) -> bool {
        match (looks, self.contender) {
            (_, Contender::Nobody) | (Looks::Task, Contender::Task) => true,
            (Looks::Thread(thread), Contender::Thread(attempt)) => thread == attempt,
            _ => false,
        }
    }

    /// Sees to it that somebody competes while the head is kept out by another process, and that
    /// whoever does looks at what has changed.
    fn choose_contender(&mut self, looks: Looks, aftermath: &mut Aftermath) {
        if let Contender::Thread(attempt) = self.contender
            && self.queue.waiter(attempt).is_none()
        {
            // It was granted, or left.
            self.contender = Contender::Nobody;
        }
        if !self.contends {
            return;
        }
        let is_new = self.contender == Contender::Nobody;
        if is_new {
            let kernel = &mut self.kernel;
            let head = self.queue.head();
            let thread = head.filter(|head| head.data.hears(kernel) == Hears::Asleep);
            self.contender = match thread {
                Some(head) => Contender::Thread(head.attempt),
                None => Contender::Task,
            };
        }
        match self.contender {
            Contender::Task if is_new => aftermath.task = ForTask::Start,
            Contender::Task if looks != Looks::Task => aftermath.task = ForTask::Nudge,
            Contender::Thread(attempt) if looks != Looks::Thread(attempt) => {
                let waiter = self.queue.waiter(attempt);
                let place = waiter.and_then(|waiter| waiter.data.place.as_ref());
                aftermath
                    .wakers
                    .extend(place.and_then(|place| place.waker()));
            }
            _ => {}
        }
    }

    /// Whether the thread that waits for this attempt has to compete.
    pub(crate) fn is_contender(&self, attempt: OwnerToken) -> bool {
        self.contends && self.contender == Contender::Thread(attempt)
    }

    /// The waiter of this attempt is no thread that can sleep, after all: a task competes for it.
    pub(crate) fn compete_by_task(&mut self, key: &LockKey, attempt: OwnerToken) -> Aftermath {
        self.contender = Contender::Nobody;
        if let Some(waiter) = self.queue.waiter(attempt) {
            waiter.data.parks.set(false);
        }
        self.pump(key, Looks::InPassing)
    }

    /// Whether the task that competes for the head is still needed. If not, it has to end.
    pub(crate) fn needs_task(&mut self) -> bool {
        let needed = self.contends && self.contender == Contender::Task;
        if !needed && self.contender == Contender::Task {
            self.contender = Contender::Nobody;
        }
        needed
    }

    /// What tells the contender of the deaths and writes of others, `None` where nothing does; and
    /// whether it tells only from now on.
    pub(crate) fn watch(&mut self) -> (Option<Arc<KeyWatch>>, bool) {
        let listens = match (self.contender, self.kernel.waits_for()) {
            (Contender::Task, Some(waits_for)) => Some(waits_for.bell),
            _ => None,
        };
        let opened = self.kernel.opened();
        let fits = |watch: &Arc<KeyWatch>| watch.fits(listens, opened);
        if self.watch.as_ref().is_some_and(fits) {
            return (self.watch.clone(), false);
        }
        // Before the new one: it would add to what the old one is told.
        self.watch = None;
        let watch = KeyWatch::on(self.kernel.names(), listens, opened);
        self.watch = watch.map(Arc::new);
        (self.watch.clone(), self.watch.is_some())
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Hears no more of others when nobody waits for them.
    pub(crate) fn stop_watching(&mut self) -> Option<Arc<KeyWatch>> {
        match self.contends {
            true => None,
            false => self.watch.take(),
        }
    }

    /// Ends every wait here with an error.
    pub(crate) fn drain(&mut self, why: impl Fn() -> lock_core::Error) -> Aftermath {
        let mut aftermath = Aftermath::default();
        for party in self.queue.drain_waiters() {
            let place = party.data.place;
            aftermath
                .wakers
                .extend(place.and_then(|place| place.give(Err(why()))));
        }
        self.kernel.stop_waiting();
        self.contends = false;
        if let Contender::Thread(_) = self.contender {
            self.contender = Contender::Nobody;
        }
        aftermath
    }
}
