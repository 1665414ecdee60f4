//! The line of one key, and the waiters of this process in it.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::OwnerToken;
use lock_core::clock::Instant;
use tokio::sync::mpsc;

use crate::layout::Place;
use crate::line::{Line, Plan, Stand};
use crate::wire::Event;

/// What a waiter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It holds, since this revision, with these permits.
    Granted(i64, Vec<u32>),
    /// Its record is gone.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// Changed only under the lock of the shards.
    pub(super) users: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    line: Option<Line>,
    /// Somebody reads it in the step that makes a record.
    reading: bool,
    /// Events that came before the line was read.
    early: Vec<Event>,
    /// The revision at which the line was read: earlier events are in it.
    read_at: i64,
    /// Since this revision no event has been missed.
    followed_from: i64,
    own: HashMap<OwnerToken, Own>,
    /// Until the line has come so far, waiters of ours are being let in.
    promoting: Option<i64>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Own {
    news: mpsc::UnboundedSender<News>,
    /// The revision of its record; before it is known, nothing is missed.
    queued_at: Option<i64>,
}

impl Entry {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            place: place.clone(),
            users: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// Registers a waiter of this process, before its record is made.
    pub(crate) fn join(&self, attempt: OwnerToken) -> mpsc::UnboundedReceiver<News> {
        let (news, receiver) = mpsc::unbounded_channel();
        let own = Own {
            news,
            queued_at: None,
        };
        self.state().own.insert(attempt, own);
        receiver
    }

    pub(crate) fn part(&self, attempt: OwnerToken) {
        self.state().own.remove(&attempt);
    }

    /// A waiter's record was made.
    pub(crate) fn queued(&self, attempt: OwnerToken, revision: i64) {
        if let Some(own) = self.state().own.get_mut(&attempt) {
            own.queued_at = Some(revision);
        }
    }

    fn granted(&self, attempt: OwnerToken, revision: i64, slots: Vec<u32>) {
        if let Some(own) = self.state().own.remove(&attempt) {
            let _ = own.news.send(News::Granted(revision, slots));
        }
    }

    pub(crate) fn has_line(&self) -> bool {
        self.state().line.is_some()
    }

    pub(super) fn leaving(&self, holder: &Stand) -> Option<Plan> {
        self.state().line.as_ref()?.leave(holder)
    }

    pub(super) fn is_overdue(&self, limit: Duration) -> bool {
        let state = self.state();
        !state.own.is_empty() && state.looked.is_none_or(|at| (at + limit).has_passed())
    }

    /// Whether the caller is the one to read the line, until it [has](Self::has_read).
    pub(crate) fn reads(&self) -> bool {
        !std::mem::replace(&mut self.state().reading, true)
    }

    pub(crate) fn has_read(&self) {
        self.state().reading = false;
    }

    /// Every event after this revision will be told, and some before it may have been missed.
    ///
    /// Invariant: no event is applied to a line that misses an earlier one. A holder that was never
    /// seen would be taken for none.
    pub(super) fn follow_from(&self, revision: i64) {
        let mut state = self.state();
        state.followed_from = revision;
        // What was read before was given up with the line: later events are news again.
        state.read_at = revision;
        state.line = None;
        state.looked = None;
        state.early.clear();
    }

    /// Takes in a line that was read from the store.
    pub(crate) fn seed(&self, mut line: Line) {
        let mut state = self.state();
        if line.revision < state.followed_from {
            return;
        }
        state.looked = Some(Instant::now());
        if state
            .line
            .as_ref()
            .is_some_and(|known| known.revision > line.revision)
        {
            return;
        }
        state.read_at = line.revision;
        for event in std::mem::take(&mut state.early) {
            if event_revision(&event) > state.read_at {
                line.apply(&event);
            }
        }
        state.line = Some(line);
    }

    /// Takes in a transaction of ours ahead of its events, and tells waiters of ours.
    pub(crate) fn carried_out(&self, plan: &Plan, revision: i64) {
        if let Some(line) = &mut self.state().line {
            line.carried_out(plan, revision);
        }
        for (attempt, slots) in &plan.lets_in {
            self.granted(*attempt, revision, slots.clone());
        }
    }

    pub(super) fn apply(&self, event: &Event) {
        let mut state = self.state();
        if event_revision(event) <= state.read_at {
            return;
        }
        match &mut state.line {
            Some(line) => line.apply(event),
            None => state.early.push(event.clone()),
        }
    }

    /// Tells waiters of ours what became of them, and says how to let in those whose turn it is.
    pub(crate) fn look(&self) -> Option<Plan> {
        let mut state = self.state();
        let State {
            line: Some(line),
            own,
            promoting,
            ..
        } = &mut *state
        else {
            return None;
        };
        own.retain(|attempt, own| {
            if let Some(holder) = line.holder(*attempt) {
                let slots = holder.record.slots.clone();
                let _ = own.news.send(News::Granted(holder.created, slots));
                return false;
            }
            let gone = own.queued_at.is_some_and(|at| at <= line.revision);
            if gone && !line.waits(*attempt) {
                let _ = own.news.send(News::Gone);
                return false;
            }
            true
        });
        if promoting.is_some_and(|until| line.revision < until) {
            return None;
        }
        let grants = line.next(None).only(|attempt| own.contains_key(&attempt));
        if grants.is_empty() {
            *promoting = None;
            return None;
        }
        *promoting = Some(i64::MAX);
        Some(grants.plan())
    }

    /// Waiters of ours were let in at this revision, or, with 0, were not.
    pub(crate) fn promoted(&self, revision: i64) {
        self.state().promoting = Some(revision);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event_revision(event: &Event) -> i64 {
    event.entry.as_ref().map_or(0, |entry| entry.mod_revision)
}

#[cfg(test)]
mod tests;
