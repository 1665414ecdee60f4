//! The graph that wrappers share: one mutex, and what must happen under it at once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::reduction::{self, Trust};
use super::state::{Holder, Place, State, Wait};
use crate::fork::ForkLocal;
use crate::{DeadlockEdge, Mode, OwnerId, OwnerToken};

/// Who holds and who waits, over every backend whose [`Deadlock`](super::Deadlock) wrapper shares
/// it. Clones are the same graph. A forked child starts with an empty one.
///
/// ```
/// # use std::sync::Arc;
/// # use lock_core::LockBackend;
/// use lock_core::wrap::{Deadlock, WaitGraph};
///
/// # fn example(memory: Arc<dyn LockBackend>, files: Arc<dyn LockBackend>) {
/// let graph = WaitGraph::new();
/// let memory = Deadlock::sharing(memory, graph.clone());
/// let files = Deadlock::sharing(files, graph);
/// # }
/// ```
#[derive(Clone, Default)]
pub struct WaitGraph {
    state: Arc<ForkLocal<Mutex<State>>>,
}

/// What a wait would lead to.
pub(super) enum Verdict {
    /// It can be granted, as far as is known.
    Wait,
    /// It waits, but inferred owners seem to wait for each other.
    Suspect(Vec<DeadlockEdge>),
    /// It could never be granted; it was not entered.
    Deadlock(Vec<DeadlockEdge>),
}

impl WaitGraph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many acquires wait now. Advisory.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// How many grants are held now. Advisory.
    pub fn held(&self) -> usize {
        self.lock().held()
    }

    /// Enters a wait, unless it closes a cycle. Entering and looking are one step, so that of
    /// several waits that close a cycle together the last one to come sees all others.
    pub(super) fn wait(&self, wait: Wait) -> Verdict {
        let owner = wait.owner;
        let attempt = wait.attempt;
        let mut state = self.lock();
        if !state.enter(wait) {
            return Verdict::Wait;
        }
        if !state.is_waited_for(owner) {
            return Verdict::Wait;
        }
        if let Some(cycle) = reduction::deadlock(&state, owner, attempt, Trust::Explicit) {
            state.withdraw(attempt);
            return Verdict::Deadlock(cycle);
        }
        if !state.has_inferred_waits() {
            return Verdict::Wait;
        }
        match reduction::deadlock(&state, owner, attempt, Trust::All) {
            Some(cycle) if state.is_news(&cycle) => Verdict::Suspect(cycle),
            _ => Verdict::Wait,
        }
    }

    /// The backend has queued the attempt: later waiters stand behind it.
    pub(super) fn queued(&self, attempt: OwnerToken) {
        self.lock().queued(attempt);
    }

    /// The wait is over without a grant.
    pub(super) fn withdraw(&self, attempt: OwnerToken) {
        self.lock().withdraw(attempt);
    }

    /// A grant came back, with or without a wait.
    pub(super) fn hold(&self, place: Place, holder: Holder) {
        let replaced = {
            let mut state = self.lock();
            state.withdraw(holder.attempt);
            state.hold(place, holder)
        };
        // Outside the lock: the last handle on a loss signal drops callbacks of users.
        drop(replaced);
    }

    /// The attempt is over, in whatever state it was.
    pub(super) fn leave(&self, place: &Place, attempt: OwnerToken) {
        let gone = {
            let mut state = self.lock();
            let gone = state.leave(place, attempt);
            if gone.is_none() {
                state.withdraw(attempt);
            }
            gone
        };
        drop(gone);
    }

    pub(super) fn change_mode(&self, place: &Place, attempt: OwnerToken, mode: Mode) {
        self.lock().change_mode(place, attempt, mode);
    }

    pub(super) fn change_owner(&self, place: &Place, attempt: OwnerToken, owner: OwnerId) {
        self.lock().change_owner(place, attempt, owner);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WaitGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGraph")
            .field("waiting", &self.waiting())
            .field("held", &self.held())
            .finish()
    }
}
