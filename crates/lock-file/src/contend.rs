//! Competing with other processes for one key.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lock_core::host::{Stirred, Watch};
use lock_core::parking::{park_by, parks};
use lock_core::{Grant, OwnerToken, Result};

use crate::backend::Shared;
use crate::entry::{KeyCell, Looks};
use crate::names::Names;
use crate::page::Bell;
use crate::seat::Place;

/// What tells of the deaths of other processes that use the key, and of their writes.
#[derive(Debug)]
pub(crate) struct KeyWatch {
    watch: Watch,
    listens: Option<Bell>,
    opened: u64,
}

impl KeyWatch {
    /// `None` when the system tells nothing.
    pub(crate) fn on(names: &Names, listens: Option<Bell>, opened: u64) -> Option<Self> {
        let watch = Watch::on(&names.watched(listens))?;
        Some(Self {
            watch,
            listens,
            opened,
        })
    }

    /// Whether it tells what a contender has to know that listens to this bell, of the lock file
    /// that was opened last.
    pub(crate) fn fits(&self, listens: Option<Bell>, opened: u64) -> bool {
        self.listens == listens && self.opened == opened
    }

    async fn stirred(watch: Option<Arc<Self>>) -> Stirred {
        match watch {
            Some(watch) => watch.watch.stirred().await,
            None => pending().await,
        }
    }
}

/// After a process may have died others look again, and again, each time after twice as long: the
/// kernel reports that its files were closed just before it gives up the locks on them.
const SECOND_LOOKS: u32 = 6;
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(1);

/// Where changes are not reported, waiters look by themselves, less and less often.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LAST_POLL: Duration = Duration::from_millis(25);

/// When to look without having been told.
#[derive(Debug)]
struct Pace {
    backup: Duration,
    poll: Duration,
    second_looks: u32,
}

impl Pace {
    fn new(backup: Duration) -> Self {
        Self {
            backup,
            poll: FIRST_POLL,
            second_looks: 0,
        }
    }

    fn heard(&mut self, stirred: Stirred) {
        if stirred == Stirred::Closed {
            self.second_looks = SECOND_LOOKS;
        }
    }

    /// How long to wait for news.
    fn pause(&mut self, is_told: bool) -> Duration {
        if self.second_looks > 0 {
            let looked = SECOND_LOOKS - self.second_looks;
            self.second_looks -= 1;
            return SECOND_LOOK_AFTER * 2_u32.pow(looked);
        }
        if is_told {
            return self.backup;
        }
        let pause = self.poll;
        self.poll = (pause * 2).min(LAST_POLL.min(self.backup.max(FIRST_POLL)));
        pause
    }
}

/// Competes for the head of a key's queue until nobody waits, for waiters that are no threads. One
/// task for all of them in this process.
pub(crate) async fn contend(shared: Arc<Shared>, cell: Arc<KeyCell>) {
    let mut pace = Pace::new(shared.backup_poll);
    loop {
        let (aftermath, watch) = {
            let mut state = cell.state();
            let aftermath = state.pump(cell.key(), Looks::Task);
            let watch = state.needs_task().then(|| state.watch());
            (aftermath, watch)
        };
        shared.settle(&cell, aftermath);
        let Some((watch, is_new)) = watch else {
            return;
        };
        shared.watchman().watch(&shared);
        if is_new {
            // Nothing may happen between the last look and the watch.
            continue;
        }
        let pause = pace.pause(watch.is_some());
        let mut stirred = pin!(KeyWatch::stirred(watch));
        let mut nudged = pin!(cell.nudge.notified());
        let news = poll_fn(|context| match stirred.as_mut().poll(context) {
            Poll::Ready(stirred) => Poll::Ready(Some(stirred)),
            Poll::Pending => nudged.as_mut().poll(context).map(|()| None),
        });
        if let Ok(Some(stirred)) = tokio::time::timeout(pause, news).await {
            pace.heard(stirred);
        }
    }
}

/// One waiter, which competes by itself if it is a thread and it falls to it.
pub(crate) struct Waiter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cell: Arc<KeyCell>,
    pub(crate) attempt: OwnerToken,
    pub(crate) place: Place,
    pace: Pace,
    stirred: Option<Pin<Box<dyn Future<Output = Stirred> + Send>>>,
}

impl Waiter {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        cell: Arc<KeyCell>,
        attempt: OwnerToken,
        place: Place,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            cell,
            attempt,
            place,
            pace: Pace::new(shared.backup_poll),
            stirred: None,
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Grant>>> {
        loop {
            if let Poll::Ready(outcome) = self.place.poll_take(context) {
                return Poll::Ready(outcome);
            }
            let mut state = self.cell.state();
            if !state.is_contender(self.attempt) {
                return Poll::Pending;
            }
            if !parks() {
                let aftermath = state.compete_by_task(self.cell.key(), self.attempt);
                drop(state);
                self.shared.settle(&self.cell, aftermath);
                continue;
            }
            let aftermath = state.pump(self.cell.key(), Looks::Thread(self.attempt));
            let competes = state.is_contender(self.attempt);
            let watch = competes.then(|| state.watch());
            let waits_for = state.kernel().waits_for().cloned();
            drop(state);
            self.shared.settle(&self.cell, aftermath);
            let Some((watch, is_new)) = watch else {
                // Granted, most likely.
                continue;
            };
            self.shared.watchman().watch(&self.shared);
            let is_told = watch.is_some();
            if is_new || self.stirred.is_none() {
                self.stirred = Some(Box::pin(KeyWatch::stirred(watch)));
            }
            if is_new {
                // Nobody may die between the last look and the watch.
                continue;
            }
            if let Some(stirred) = &mut self.stirred
                && let Poll::Ready(stirred) = stirred.as_mut().poll(context)
            {
                self.stirred = None;
                self.pace.heard(stirred);
                continue;
            }
            let pause = self.pace.pause(is_told);
            if let Some(bed) = waits_for.and_then(|waits_for| waits_for.bed(pause)) {
                park_by(bed);
            }
            return self.place.poll_take(context);
        }
    }
}
