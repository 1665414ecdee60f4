//! The attempts of this process, from the first request until the store has confirmed their end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Grant, Handoff, LockKey, Mode, OwnerToken, Request, Result, Validity, runtime};
use tokio::sync::Notify;

use crate::layout::Place;
use crate::line::Stand;
use crate::mirror::Interest;
use crate::record::Record;
use crate::session::Session;

/// How long it is remembered that a lock was detached here.
const DETACHED: Duration = Duration::from_secs(3600);

/// What a caller waits for.
pub(crate) type Answer = Result<Option<Grant>>;

#[derive(Debug, Default)]
pub(crate) struct Table {
    attempts: Mutex<HashMap<OwnerToken, Stage>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Asked for; whether anything stands in the store its task knows.
    Asking(Arc<Asking>),
    Held(Arc<Hold>),
    /// Lives on by a lease of its own; whoever bounded the hold may still give it up.
    Detached(Arc<Hold>),
    /// Given up; a task deletes what stands in the store.
    Leaving(LockKey),
}

/// An attempt that has no answer yet.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) place: Place,
    pub(crate) request: Request,
    listener: Mutex<Arc<Handoff<Answer>>>,
    over: AtomicBool,
    ended: Notify,
}

/// A grant.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) place: Place,
    pub(crate) attempt: OwnerToken,
    pub(crate) session: Arc<Session>,
    /// This grant's part of the session's.
    pub(crate) validity: Validity,
    pub(crate) since: Instant,
    /// Whether its record is watched.
    pub(crate) watched: AtomicBool,
    /// Whether it lives by a lease of its own.
    pub(crate) detached: AtomicBool,
    /// One change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    state: Arc<Mutex<HoldState>>,
    /// Keeps following the line of one that waited, to hand over in one step.
    _interest: Option<Interest>,
}

/// How a grant is held; a change alters it.
#[derive(Clone, Debug)]
pub(crate) struct HoldState {
    pub(crate) mode: Mode,
    pub(crate) created: i64,
    pub(crate) record: Record,
}

impl Table {
    /// Registers an attempt, unless it is known: then its present stage is returned.
    pub(crate) fn begin(&self, asking: &Arc<Asking>) -> Option<Stage> {
        let mut attempts = self.attempts();
        let attempt = asking.request.attempt;
        if let Some(stage) = attempts.get(&attempt) {
            return Some(stage.clone());
        }
        attempts.insert(attempt, Stage::Asking(Arc::clone(asking)));
        None
    }

    /// Makes a holder of an attempt that is asking. Returns false when it was given up.
    pub(crate) fn hold(&self, attempt: OwnerToken) -> Option<Arc<Hold>> {
        match self.attempts().get(&attempt) {
            Some(Stage::Held(hold)) => Some(Arc::clone(hold)),
            _ => None,
        }
    }

    /// An asking attempt holds now; false when it has been given up meanwhile.
    pub(crate) fn granted(&self, asking: &Asking, hold: &Arc<Hold>) -> bool {
        let mut attempts = self.attempts();
        if asking.is_over() {
            return false;
        }
        attempts.insert(hold.attempt, Stage::Held(Arc::clone(hold)));
        true
    }

    /// A grant that was made elsewhere is held here from now on.
    pub(crate) fn adopt(&self, hold: Arc<Hold>) {
        self.attempts().insert(hold.attempt, Stage::Held(hold));
    }

    /// Gives an attempt up. Returns the hold, if it was one, for the caller to end.
    pub(crate) fn give_up(&self, attempt: OwnerToken) -> Option<Arc<Hold>> {
        let mut attempts = self.attempts();
        match attempts.get(&attempt) {
            Some(Stage::Asking(asking)) => {
                // Under the lock, so that it is either granted before or never.
                asking.end();
                None
            }
            Some(Stage::Held(hold) | Stage::Detached(hold)) => {
                let hold = Arc::clone(hold);
                attempts.insert(attempt, Stage::Leaving(hold.place.key.clone()));
                Some(hold)
            }
            Some(Stage::Leaving(_)) | None => None,
        }
    }

    /// A hold lives on by a lease of its own, unless it is being ended.
    pub(crate) fn detached(&self, hold: &Arc<Hold>) {
        let mut attempts = self.attempts();
        if matches!(attempts.get(&hold.attempt), Some(Stage::Held(_))) {
            hold.detached.store(true, Ordering::Release);
            attempts.insert(hold.attempt, Stage::Detached(Arc::clone(hold)));
        }
    }

    /// Forgets detached holds whose lease has ended, or is renewed elsewhere.
    pub(crate) fn sweep(&self) {
        let mut gone = Vec::new();
        self.attempts().retain(|_, stage| match stage {
            Stage::Detached(hold) if (hold.since + DETACHED).has_passed() => {
                gone.push(Arc::clone(hold));
                false
            }
            _ => true,
        });
    }

    /// The answer is out, and something still stands in the store.
    pub(crate) fn leaving(&self, attempt: OwnerToken, key: &LockKey) {
        self.attempts().insert(attempt, Stage::Leaving(key.clone()));
    }

    /// The store has nothing of it any more.
    pub(crate) fn forget(&self, attempt: OwnerToken) {
        let gone = self.attempts().remove(&attempt);
        drop(gone);
        self.changed.notify_waiters();
    }

    pub(crate) fn asking(&self) -> Vec<Arc<Asking>> {
        let attempts = self.attempts();
        let asking = attempts.values().filter_map(|stage| match stage {
            Stage::Asking(asking) => Some(Arc::clone(asking)),
            _ => None,
        });
        asking.collect()
    }

    pub(crate) fn holds(&self) -> Vec<Arc<Hold>> {
        let attempts = self.attempts();
        let holds = attempts.values().filter_map(|stage| match stage {
            Stage::Held(hold) => Some(Arc::clone(hold)),
            _ => None,
        });
        holds.collect()
    }

    /// What was given up and is not confirmed.
    pub(crate) fn debts(&self) -> Vec<(OwnerToken, LockKey)> {
        let attempts = self.attempts();
        let debts = attempts.iter().filter_map(|(attempt, stage)| match stage {
            Stage::Asking(asking) if asking.is_over() => Some((*attempt, asking.place.key.clone())),
            Stage::Leaving(key) => Some((*attempt, key.clone())),
            Stage::Asking(_) | Stage::Held(_) | Stage::Detached(_) => None,
        });
        debts.collect()
    }

    pub(crate) fn has_debts(&self) -> bool {
        !self.debts().is_empty()
    }

    /// Whether nothing lives by a session.
    pub(crate) fn is_idle(&self) -> bool {
        let attempts = self.attempts();
        let mut stages = attempts.values();
        stages.all(|stage| matches!(stage, Stage::Detached(_)))
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<OwnerToken, Stage>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    pub(crate) fn new(place: Place, request: Request) -> (Arc<Self>, Arc<Handoff<Answer>>) {
        let listener = Arc::new(Handoff::new());
        let asking = Self {
            place,
            request,
            listener: Mutex::new(Arc::clone(&listener)),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        };
        (Arc::new(asking), listener)
    }

    /// Somebody asks again for the same attempt.
    pub(crate) fn listen(&self) -> Arc<Handoff<Answer>> {
        let listener = Arc::new(Handoff::new());
        *self.listener() = Arc::clone(&listener);
        listener
    }

    pub(crate) fn answer(&self, answer: Answer) {
        let listener = Arc::clone(&self.listener());
        if let Some(waker) = listener.give(answer) {
            runtime::wake(waker);
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.notify_one();
    }

    pub(crate) fn give_up(&self) {
        self.end();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ready once the attempt has been given up.
    pub(crate) async fn ended(&self) {
        while !self.is_over() {
            self.ended.notified().await;
        }
    }

    fn listener(&self) -> MutexGuard<'_, Arc<Handoff<Answer>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub(crate) fn new(
        place: Place,
        attempt: OwnerToken,
        session: Arc<Session>,
        validity: Validity,
        state: Arc<Mutex<HoldState>>,
        interest: Option<Interest>,
    ) -> Self {
        Self {
            place,
            attempt,
            session,
            validity,
            since: Instant::now(),
            watched: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            changing: tokio::sync::Mutex::new(()),
            state,
            _interest: interest,
        }
    }

    /// The grant, for whoever asks for it again.
    pub(crate) fn grant(&self) -> Result<Grant> {
        let state = self.state();
        Ok(Grant {
            attempt: self.attempt,
            fence: crate::grant::fence(state.mode, state.created, &state.record.slots)?,
            validity: Some(self.validity.clone()),
        })
    }

    /// A change was made to its record, which is watched anew.
    pub(crate) fn changed_to(&self, state: HoldState) {
        *self.state() = state;
        self.watched.store(false, Ordering::Release);
    }

    pub(crate) fn stand(&self) -> Stand {
        let state = self.state();
        Stand {
            attempt: self.attempt,
            mode: state.mode,
            created: state.created,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, HoldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
