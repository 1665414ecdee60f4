//! Holders and waiters of one key: who may enter, who is next.
//!
//! A plain state machine without time, wakers or I/O, so that every backend that decides order
//! itself decides it the same way, and so that it can be tested exhaustively.

mod lane;
mod waiting;

use std::fmt;
use std::hash::Hash;

use crate::{Mode, OwnerToken};
pub use waiting::Ticket;
use waiting::Waiting;

/// A waiter that has been bypassed this often goes to the front, whatever its priority.
pub const BYPASS_LIMIT: u32 = 64;

/// Someone who holds or waits, with whatever the backend keeps about it.
///
/// `A` tells attempts apart: an [`OwnerToken`], or less where all attempts are of one process.
#[derive(Clone, Debug)]
pub struct Party<T, A = OwnerToken> {
    /// The attempt.
    pub attempt: A,
    /// How it holds or wants to hold.
    pub mode: Mode,
    /// Higher goes first.
    pub priority: i8,
    /// The backend's own data.
    pub data: T,
}

/// Why a party could not enter at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It can wait for its turn.
    Contended,
    /// It can never take turns with this mode, which is held or waited for.
    Conflict(Mode),
}

/// What a backend that needs more than this queue says about the head of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It enters.
    Enter,
    /// It stays at the head: something outside this queue is in its way.
    Stay,
    /// It can never enter, and leaves the line.
    Leave,
}

/// The holders and waiters of one key.
///
/// - Exclusive excludes all; shared goes with shared; permits go together up to their maximum.
/// - Higher priority first, first come first served within one. Nobody overtakes the head: a
///   waiting exclusive holds back new shared ones, a waiter for many permits holds back one for few.
/// - The oldest waiter of each priority counts who overtakes it; after [`BYPASS_LIMIT`] it goes to
///   the front.
/// - A holder that leaves hands over directly: the next ones hold before anyone else can ask.
///
/// One uncontended holder costs no allocation.
#[derive(Clone)]
pub struct KeyQueue<T, A = OwnerToken> {
    /// Who holds, mostly one. `None` only if nobody does.
    holder: Option<Party<T, A>>,
    others: Vec<Party<T, A>>,
    permits_used: u32,
    waiting: Waiting<T, A>,
}

impl<T, A: Copy + Eq + Hash> KeyQueue<T, A> {
    /// A key that nobody uses.
    #[must_use]
    pub fn new() -> Self {
        Self {
            holder: None,
            others: Vec::new(),
            permits_used: 0,
            waiting: Waiting::default(),
        }
    }

    /// Whether nobody holds and nobody waits, so that the key can be forgotten.
    pub fn is_idle(&self) -> bool {
        self.holder.is_none() && self.waiting.is_empty()
    }

    /// Who holds.
    pub fn holders(&self) -> impl Iterator<Item = &Party<T, A>> {
        self.holder.iter().chain(&self.others)
    }

    /// Who waits, next one first.
    pub fn waiters(&self) -> impl Iterator<Item = &Party<T, A>> {
        self.waiting.iter()
    }

    /// One holder.
    pub fn holder_mut(&mut self, attempt: A) -> Option<&mut Party<T, A>> {
        let mut holders = self.holder.iter_mut().chain(&mut self.others);
        holders.find(|holder| holder.attempt == attempt)
    }

    /// Whether a party could enter at once, or why not.
    ///
    /// # Errors
    /// The [`Refusal`].
    #[inline]
    pub fn admits(&self, mode: Mode, priority: i8) -> Result<(), Refusal> {
        if let Some(other) = self.conflict(mode) {
            return Err(Refusal::Conflict(other));
        }
        if self.waiting.yields_to(priority) && self.has_room(mode) {
            Ok(())
        } else {
            Err(Refusal::Contended)
        }
    }

    /// Makes a party a holder. Call it only right after [`admits`](Self::admits) said so.
    pub fn enter(&mut self, party: Party<T, A>) {
        debug_assert!(self.admits(party.mode, party.priority).is_ok());
        self.waiting.count_newcomer(party.priority);
        self.hold(party);
    }

    /// Queues a party. Call it only after [`admits`](Self::admits) said it is contended, or when
    /// something outside this queue is in its way; then let it in by
    /// [`admit_heads`](Self::admit_heads).
    #[inline]
    pub fn enqueue(&mut self, party: Party<T, A>) -> Ticket {
        debug_assert!(!matches!(
            self.admits(party.mode, party.priority),
            Err(Refusal::Conflict(_))
        ));
        self.waiting.push(party)
    }

    /// Ends an attempt, whether it holds, waits, or is unknown, and lets the next ones in:
    /// `granted` is called for each as it becomes a holder.
    pub fn leave(
        &mut self,
        attempt: A,
        granted: impl FnMut(&mut Party<T, A>),
    ) -> Option<Party<T, A>> {
        let gone = self.withdraw(attempt)?;
        self.admit_next(granted);
        Some(gone)
    }

    /// Ends an attempt as [`leave`](Self::leave) does, but lets nobody in: for a backend that has to
    /// ask outside first, with [`admit_heads`](Self::admit_heads).
    #[inline]
    pub fn withdraw(&mut self, attempt: A) -> Option<Party<T, A>> {
        let is_it = |holder: &Party<T, A>| holder.attempt == attempt;
        let holder = if self.holder.as_ref().is_some_and(is_it) {
            std::mem::replace(&mut self.holder, self.others.pop())
        } else {
            let at = self.others.iter().position(is_it);
            at.map(|at| self.others.swap_remove(at))
        };
        if let Some(holder) = holder {
            self.permits_used -= permits(holder.mode);
            return Some(holder);
        }
        self.waiting.remove(attempt)
    }

    /// The same for one that has queued with this ticket, which need not be looked for if it still
    /// waits.
    #[inline]
    pub fn withdraw_with(&mut self, ticket: Ticket, attempt: A) -> Option<Party<T, A>> {
        let gone = self.waiting.remove_with(ticket, attempt);
        gone.or_else(|| self.withdraw(attempt))
    }

    /// Lets in the heads of the line that fit, one by one, as long as `turn` says that they enter.
    #[inline]
    pub fn admit_heads(&mut self, mut turn: impl FnMut(&mut Party<T, A>) -> Turn) {
        while let Some(head) = self.waiting.head_mut() {
            if !fits(self.holder.as_ref(), self.permits_used, head.mode) {
                break;
            }
            let (attempt, verdict) = (head.attempt, turn(head));
            match verdict {
                Turn::Stay => break,
                Turn::Leave => drop(self.waiting.remove(attempt)),
                Turn::Enter => {
                    if let Some(party) = self.waiting.pop() {
                        self.hold(party);
                    }
                }
            }
        }
    }

    /// One waiter.
    pub fn waiter(&mut self, attempt: A) -> Option<&Party<T, A>> {
        self.waiting.get(attempt)
    }

    /// One waiter, to change what is kept about it.
    pub fn waiter_mut(&mut self, attempt: A) -> Option<&mut Party<T, A>> {
        self.waiting.get_mut(attempt)
    }

    /// Who is next.
    #[inline]
    pub fn head(&self) -> Option<&Party<T, A>> {
        self.waiting.head()
    }

    /// Who is next, to change what is kept about it.
    pub fn head_mut(&mut self) -> Option<&mut Party<T, A>> {
        self.waiting.head_mut()
    }

    /// Whether the holders leave room for `mode`, whoever waits.
    pub fn has_room(&self, mode: Mode) -> bool {
        fits(self.holder.as_ref(), self.permits_used, mode)
    }

    /// Makes a party a holder ahead of everyone who waits. Call it only after
    /// [`has_room`](Self::has_room) said so, and bound how often.
    pub fn barge(&mut self, party: Party<T, A>) {
        debug_assert!(self.has_room(party.mode) && self.conflict(party.mode).is_none());
        self.hold(party);
    }

    /// Turns an exclusive holder into a shared one, and lets in the shared ones at the head.
    ///
    /// # Errors
    /// A conflicting mode that is waited for; nothing has changed then. `None` of the inner option
    /// means that the attempt does not hold exclusively.
    pub fn downgrade(
        &mut self,
        attempt: A,
        granted: impl FnMut(&mut Party<T, A>),
    ) -> Result<Option<()>, Mode> {
        let waited_for = self.waiting.conflict(Mode::Shared);
        let holder = self
            .holder_mut(attempt)
            .filter(|holder| holder.mode == Mode::Exclusive);
        let Some(holder) = holder else {
            return Ok(None);
        };
        if let Some(other) = waited_for {
            return Err(other);
        }
        holder.mode = Mode::Shared;
        self.admit_next(granted);
        Ok(Some(()))
    }

    /// Removes everyone who waits.
    pub fn drain_waiters(&mut self) -> impl Iterator<Item = Party<T, A>> + use<T, A> {
        std::mem::take(&mut self.waiting).into_parties()
    }

    fn admit_next(&mut self, mut granted: impl FnMut(&mut Party<T, A>)) {
        self.admit_heads(|party| {
            granted(party);
            Turn::Enter
        });
    }

    #[inline]
    fn hold(&mut self, party: Party<T, A>) {
        self.permits_used += permits(party.mode);
        match &self.holder {
            None => self.holder = Some(party),
            Some(_) => self.others.push(party),
        }
    }

    /// A mode in use that can never take turns with `mode`. All holders have one mode, or modes
    /// that agree, so looking at the first is enough.
    fn conflict(&self, mode: Mode) -> Option<Mode> {
        let held = self.holder.as_ref().map(|holder| holder.mode);
        held.filter(|held| held.conflicts_with(mode))
            .or_else(|| self.waiting.conflict(mode))
    }
}

fn fits<T, A>(holder: Option<&Party<T, A>>, permits_used: u32, mode: Mode) -> bool {
    let Some(held) = holder.map(|holder| holder.mode) else {
        return true;
    };
    match (held, mode) {
        (Mode::Shared, Mode::Shared) => true,
        (Mode::Permit(_), Mode::Permit(wanted)) => wanted.of() - permits_used >= wanted.count(),
        _ => false,
    }
}

fn permits(mode: Mode) -> u32 {
    match mode {
        Mode::Permit(permits) => permits.count(),
        Mode::Exclusive | Mode::Shared => 0,
    }
}

impl<T, A: Copy + Eq + Hash> Default for KeyQueue<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, A: Copy + Eq + Hash + fmt::Debug> fmt::Debug for KeyQueue<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyQueue")
            .field("holders", &self.holders().collect::<Vec<_>>())
            .field("waiters", &self.waiters().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests;
