//! The graph that wrappers share: what must happen at once, under its one mutex.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::place::{Holder, Place};
use super::places::Places;
use super::reduction::{self, Trust};
use super::stalls;
use super::state::State;
use super::waiting::warn;
use crate::fork::ForkLocal;
use crate::{Anchor, DeadlockEdge, Error, Grant, LockKey, OwnerId, OwnerToken, Request};

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
    per_process: Arc<ForkLocal<Known>>,
    /// Holds that take longer are reported.
    report_after: Option<Duration>,
}

/// What one process knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: Places,
    state: Mutex<State>,
    stalls_watched: AtomicBool,
}

impl Known {
    pub(super) fn all_places(&self) -> Vec<Arc<Place>> {
        self.places.all()
    }
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

    /// An empty graph that also reports, through `tracing`, every hold that takes longer than
    /// `limit`, once, with its owner and where it was acquired; up to a quarter of `limit` late.
    ///
    /// The lock I/O thread looks at all holders eight times within `limit`, from the first use on;
    /// the holds themselves cost no more than without.
    #[must_use]
    pub fn reporting_holds_longer_than(limit: Duration) -> Self {
        Self {
            report_after: Some(limit),
            ..Self::default()
        }
    }

    /// How many acquires wait now. Advisory.
    pub fn waiting(&self) -> usize {
        self.state().waits.len()
    }

    /// How many grants are held now. Advisory, and takes a look at every key in use.
    pub fn held(&self) -> usize {
        self.places().all().iter().map(|place| place.held()).sum()
    }

    pub(super) fn place(&self, backend: u64, key: &LockKey) -> Arc<Place> {
        let known = self.known();
        if let Some(limit) = self.report_after
            && !known.stalls_watched.swap(true, Ordering::Relaxed)
        {
            stalls::watch(Arc::downgrade(&self.per_process), limit);
        }
        known.places.obtain(backend, key)
    }

    pub(super) fn find(&self, backend: u64, key: &LockKey) -> Option<Arc<Place>> {
        self.places().find(backend, key)
    }

    pub(super) fn forget_if_idle(&self, place: &Arc<Place>) {
        self.places().forget_if_idle(place);
    }

    /// Enters a wait, unless it closes a cycle. Entering and looking are one step, so that of
    /// several waits that close a cycle together the last one to come sees all others.
    pub(super) fn wait(&self, place: &Arc<Place>, owner: OwnerId, request: &Request) -> Verdict {
        let mut state = self.state();
        let Some(wait) = state.enter(place, owner, request) else {
            return Verdict::Wait;
        };
        if !state.may_close_a_cycle(wait) {
            return Verdict::Wait;
        }
        let verdict = judge(&mut state, owner, request.attempt);
        if let Verdict::Deadlock(_) = verdict {
            let withdrawn = state.withdraw(request.attempt);
            drop(state);
            drop(withdrawn);
        }
        verdict
    }

    /// The backend has queued the attempt: later waiters stand behind it.
    pub(super) fn queued(&self, attempt: OwnerToken) {
        self.state().queued(attempt);
    }

    /// The wait is over without a grant.
    pub(super) fn withdraw(&self, attempt: OwnerToken) {
        let withdrawn = self.state().withdraw(attempt);
        drop(withdrawn);
    }

    /// The wait has led to a grant. In this order, so that nobody is seen to wait for itself.
    pub(super) fn granted(&self, place: &Place, holder: &Holder, grant: &Grant) {
        self.withdraw(holder.attempt);
        place.hold(holder, grant);
    }

    /// The attempt is over, in whatever state it was.
    #[inline]
    pub(super) fn leave(&self, place: &Place, attempt: OwnerToken) {
        if !place.leave(attempt) && place.queue().is_some() {
            self.withdraw(attempt);
        }
    }

    /// What is held belongs to `owner` from now on; returns the holder as it was before, if there
    /// is one. Refused, with nothing changed, if that closes a cycle.
    pub(super) fn give(
        &self,
        place: &Place,
        attempt: OwnerToken,
        owner: OwnerId,
    ) -> Result<Option<Holder>, Error> {
        self.try_out(owner, |undo| {
            if let Some(before) = undo {
                place.change(attempt, |holder| *holder = before);
                return None;
            }
            place.change(attempt, |holder| {
                holder.owner = owner;
                holder.anchor = Anchor::None;
            })
        })
    }

    /// What was held by nobody here is held from now on. Refused, with nothing changed, if that
    /// closes a cycle.
    pub(super) fn take(&self, place: &Place, taken: Holder) -> Result<(), Error> {
        let outcome = self.try_out(taken.owner, |undo| {
            if undo.is_some() {
                place.leave(taken.attempt);
                return None;
            }
            place.list(taken, None);
            Some(taken)
        });
        outcome.map(drop)
    }

    /// Makes a change in favour of an owner that may be waiting, and undoes it if the owner could
    /// not go on then.
    fn try_out(
        &self,
        owner: OwnerId,
        change: impl Fn(Option<Holder>) -> Option<Holder>,
    ) -> Result<Option<Holder>, Error> {
        let mut state = self.state();
        let Some(before) = change(None) else {
            return Ok(None);
        };
        let waits: Vec<OwnerToken> = state.waits_of(owner).map(|wait| wait.attempt).collect();
        let mut suspects = Vec::new();
        for attempt in waits {
            match judge(&mut state, owner, attempt) {
                Verdict::Wait => {}
                Verdict::Suspect(cycle) => suspects.push(cycle),
                Verdict::Deadlock(cycle) => {
                    change(Some(before));
                    return Err(Error::deadlock(cycle));
                }
            }
        }
        drop(state);
        suspects.iter().for_each(|cycle| warn(cycle));
        Ok(Some(before))
    }

    fn known(&self) -> &Known {
        self.per_process.get_or_init(Known::default)
    }

    fn places(&self) -> &Places {
        &self.known().places
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = &self.known().state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a wait that was entered leads to.
fn judge(state: &mut State, owner: OwnerId, attempt: OwnerToken) -> Verdict {
    if let Some(cycle) = reduction::deadlock(state, owner, attempt, Trust::Proof) {
        return Verdict::Deadlock(cycle);
    }
    if !state.has_inferred_waits() {
        return Verdict::Wait;
    }
    match reduction::deadlock(state, owner, attempt, Trust::All) {
        Some(cycle) if state.is_news(&cycle) => Verdict::Suspect(cycle),
        _ => Verdict::Wait,
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
