//! A holder or waiter in the queue of its key.

use std::num::NonZeroU32;
use std::task::{Poll, Waker};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Mode, OwnerToken, Refusal, Turn};

use super::slots::Front;
use super::{Ask, Attempt, Details, Party, Queue, Refused, Wakers};
use crate::Fairness;
use crate::sync::elapsed;

/// How long a waiter that was called lets others barge: then it is handed the lock.
const PATIENCE: Duration = Duration::from_micros(500);

/// What a holder got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) number: u64,
    /// Which permit, where there are several.
    pub(crate) permit: u32,
    pub(crate) mode: Mode,
}

impl Pass {
    /// For a holder of no permits.
    pub(crate) fn alone(number: u64, mode: Mode) -> Self {
        Self {
            number,
            permit: 0,
            mode,
        }
    }

    /// For an exclusive holder.
    pub(crate) fn exclusive(number: u64) -> Self {
        Self::alone(number, Mode::Exclusive)
    }

    pub(crate) fn of<D>(holder: &Party<D>) -> Self {
        Self {
            number: holder.data.number(),
            permit: holder.data.permit().unwrap_or(0),
            mode: holder.mode,
        }
    }
}

/// What the queue keeps about a holder or waiter. Small, for a long line is looked at where it no
/// longer fits a cache.
#[derive(Debug)]
pub(crate) struct Seat<D> {
    pub(crate) details: D,
    stage: Stage,
    /// Taken when it is called.
    pub(super) waker: Option<Waker>,
}

/// How far a party has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It waits until the lock is handed to it.
    Waits,
    /// It waits, and lets others barge.
    LetsBarge,
    /// It was first called then, because the lock was free, and lets others barge a while longer.
    Called(Instant),
    /// It holds, and has this permit, counted from 1, where there are several.
    Holds {
        number: u64,
        permit: Option<NonZeroU32>,
    },
}

impl<D: Details> Seat<D> {
    pub(super) fn holding(number: u64, details: D) -> Self {
        let permit = None;
        Self {
            details,
            stage: Stage::Holds { number, permit },
            waker: None,
        }
    }

    pub(super) fn waiting(fairness: Fairness, waker: Option<Waker>, details: D) -> Self {
        Self {
            details,
            stage: match fairness {
                Fairness::FirstCome => Stage::Waits,
                Fairness::Barging => Stage::LetsBarge,
            },
            waker,
        }
    }

    pub(super) fn grant(&mut self, number: u64) {
        let permit = None;
        self.stage = Stage::Holds { number, permit };
        self.details.note_grant();
    }

    fn call(&mut self) {
        if let Stage::LetsBarge = self.stage {
            self.stage = Stage::Called(Instant::now());
        }
    }

    fn lets_barge(&self) -> bool {
        match self.stage {
            Stage::Waits | Stage::Holds { .. } => false,
            Stage::LetsBarge => true,
            Stage::Called(first) => elapsed(first) < PATIENCE,
        }
    }

    fn give_permit(&mut self, given: u32) {
        if let Stage::Holds { permit, .. } = &mut self.stage {
            *permit = NonZeroU32::new(given.saturating_add(1));
        }
    }
}

impl<D> Seat<D> {
    /// 0 while it waits.
    pub(crate) fn number(&self) -> u64 {
        match self.stage {
            Stage::Holds { number, .. } => number,
            Stage::Waits | Stage::LetsBarge | Stage::Called(_) => 0,
        }
    }

    fn permit(&self) -> Option<u32> {
        match self.stage {
            Stage::Holds { permit, .. } => permit.map(|permit| permit.get() - 1),
            Stage::Waits | Stage::LetsBarge | Stage::Called(_) => None,
        }
    }
}

/// A holder that had no queue so far.
pub(super) fn alone<D: Details>(pass: Pass, details: D) -> Party<D> {
    Party {
        attempt: details
            .attempt()
            .unwrap_or_else(|| OwnerToken::mint().counter()),
        mode: pass.mode,
        priority: 0,
        data: Seat::holding(pass.number, details),
    }
}

pub(super) fn party<D>(ask: &Ask<'_>, data: Seat<D>) -> Party<D> {
    Party {
        attempt: ask.attempt,
        mode: ask.mode,
        priority: ask.priority,
        data,
    }
}

/// Whether a newcomer holds at once.
pub(super) fn may_enter<D: Details>(queue: &mut Queue<D>, ask: &Ask<'_>) -> Result<bool, Refused> {
    match queue.admits(ask.mode, ask.priority) {
        Ok(()) => Ok(true),
        Err(Refusal::Conflict(other)) => Err(Refused::Conflict(other)),
        Err(Refusal::Contended) => Ok(may_barge(queue, ask)),
    }
}

/// Whether the key is free and its next waiter lets the newcomer pass.
fn may_barge<D: Details>(queue: &mut Queue<D>, ask: &Ask<'_>) -> bool {
    ask.fairness == Fairness::Barging
        && ask.mode == Mode::Exclusive
        && queue.has_room(ask.mode)
        && queue
            .head_mut()
            .is_some_and(|head| head.priority <= ask.priority && head.data.lets_barge())
}

/// Makes a party a holder that [`may_enter`].
pub(super) fn enter<D: Details>(queue: &mut Queue<D>, party: Party<D>) -> Pass {
    let attempt = party.attempt;
    if queue.admits(party.mode, party.priority).is_ok() {
        queue.enter(party);
    } else {
        queue.barge(party);
    }
    seat_permits(queue);
    let holder = queue.holder_mut(attempt);
    holder.map_or_else(|| Pass::exclusive(0), |holder| Pass::of(holder))
}

/// Lets in whoever is next and fits. A head that lets others barge is called, and enters when it
/// comes itself: as the `visitor`.
pub(super) fn admit<D: Details>(
    queue: &mut Queue<D>,
    visitor: Option<Attempt>,
    front: &Front<'_, impl Sized>,
    wakers: &mut Wakers,
) {
    queue.admit_heads(|party| {
        let seat = &mut party.data;
        let stays = visitor != Some(party.attempt) && seat.lets_barge();
        if stays {
            seat.call();
        } else {
            seat.grant(match party.mode {
                Mode::Exclusive => front.let_in(party.attempt),
                Mode::Shared | Mode::Permit(_) => front.draw(),
            });
        }
        wakers.add(seat.waker.take());
        if stays { Turn::Stay } else { Turn::Enter }
    });
    seat_permits(queue);
}

/// Gives new holders of permits the lowest that are free.
#[inline]
pub(super) fn seat_permits<D: Details>(queue: &mut Queue<D>) {
    let holder = queue.holders().next();
    if holder.is_some_and(|holder| matches!(holder.mode, Mode::Permit(_))) {
        seat_new_permits(queue);
    }
}

#[cold]
fn seat_new_permits<D: Details>(queue: &mut Queue<D>) {
    loop {
        let unseated = queue.holders().find_map(|holder| match holder.mode {
            Mode::Permit(permits) if holder.data.permit().is_none() => {
                Some((holder.attempt, permits.of()))
            }
            _ => None,
        });
        let Some((attempt, of)) = unseated else {
            return;
        };
        let taken = |permit: u32| {
            queue
                .holders()
                .any(|holder| holder.data.permit() == Some(permit))
        };
        let free = (0..of).find(|permit| !taken(*permit)).unwrap_or(0);
        if let Some(holder) = queue.holder_mut(attempt) {
            holder.data.give_permit(free);
        }
    }
}

/// A waiter that comes to look.
pub(super) struct Visitor<'a> {
    pub(super) attempt: Attempt,
    pub(super) waker: &'a Waker,
    /// A clone of it, once it is known to be needed; then what it replaced.
    pub(super) spare: Option<Waker>,
}

/// Come again with a clone of the waker: another one would be woken.
pub(super) struct NeedsWaker;

/// What a waiter finds that comes to look.
pub(super) fn look_in<D: Details>(
    queue: &mut Queue<D>,
    visitor: &mut Visitor<'_>,
    front: &Front<'_, impl Sized>,
    wakers: &mut Wakers,
) -> Result<Option<Poll<Pass>>, NeedsWaker> {
    let attempt = visitor.attempt;
    if queue.holder_mut(attempt).is_none() {
        let is_head = queue.head_mut().is_some_and(|head| head.attempt == attempt);
        if is_head {
            admit(queue, Some(attempt), front, wakers);
        }
    }
    if let Some(holder) = queue.holder_mut(attempt) {
        return Ok(Some(Poll::Ready(Pass::of(holder))));
    }
    let waiter = match queue.head_mut() {
        Some(head) if head.attempt == attempt => head,
        _ => match queue.waiter_mut(attempt) {
            Some(waiter) => waiter,
            None => return Ok(None),
        },
    };
    let known = &mut waiter.data.waker;
    if !known
        .as_ref()
        .is_some_and(|known| known.will_wake(visitor.waker))
    {
        let new = visitor.spare.take().ok_or(NeedsWaker)?;
        visitor.spare = known.replace(new);
    }
    Ok(Some(Poll::Pending))
}
