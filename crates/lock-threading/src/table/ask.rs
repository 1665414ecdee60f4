//! What is asked of the table, and what it answers.

use std::task::Waker;

use lock_core::{Mode, Ticket};

use super::{Attempt, Pass};
use crate::Fairness;

/// What is asked of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) hash: u64,
    pub(crate) mode: Mode,
    pub(crate) priority: i8,
    pub(crate) attempt: Attempt,
    pub(crate) fairness: Fairness,
    /// Queues if it must wait, and is woken by this.
    pub(crate) waker: Option<&'a Waker>,
}

impl Ask<'_> {
    /// Whether it must wait for such a holder. If not, then one of the two is shared, and they go
    /// together or never will.
    pub(super) fn is_excluded_by(&self, holder: Pass) -> bool {
        self.mode == Mode::Exclusive || holder.mode == Mode::Exclusive
    }
}

/// The key that is asked for, and how keys are told apart.
pub(crate) trait Sought<K> {
    /// A copy of it. Runs with nothing locked; the others do not.
    fn make(&self) -> K;

    fn is(&self, key: &K) -> bool;

    /// As [`Ask::hash`].
    fn hash_of(&self, key: &K) -> u64;

    fn are_same(&self, one: &K, other: &K) -> bool;
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Holds(Pass),
    Contended,
    /// With what finds it again, unless the attempt asks once more.
    Waits(Option<Ticket>),
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A mode is held or waited for that never takes turns with this one.
    Conflict(Mode),
    Closed,
}

/// Who leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// The holder with this number.
    Number(u64),
    /// An attempt, whether it holds or waits, with the ticket of its wait where that is at hand.
    Attempt(Attempt, Option<Ticket>),
}
