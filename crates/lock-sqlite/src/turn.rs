//! The way of an attempt that asks for one key: tried, then queued and waited for.

use std::future::poll_fn;
use std::sync::Arc;

use lock_core::parking::{park_by, parks};
use lock_core::{Error, Grant, Handoff, Result, Wait};

use crate::attempts::Asked;
use crate::batch::Command;
use crate::ear::Ear;
use crate::enter::{Enter, Place};
use crate::error::{NAME, not_held};
use crate::office::Office;
use crate::{patrol, writer};

/// What the first contact of an attempt came to.
pub(crate) enum Tried {
    Answer(Result<Option<Grant>>),
    /// It has to wait, for the lock or for the connection.
    Waits(Enter),
}

/// Asks without a place in the queue.
pub(crate) fn try_now(office: &Arc<Office>, mut enter: Enter) -> Tried {
    if let Some(grant) = office.attempts().held(enter.request().attempt) {
        return Tried::Answer(Ok(Some(grant)));
    }
    if enter.request().wait != Wait::Now && office.is_handed_over(enter.key()) {
        return Tried::Waits(enter);
    }
    let Some(outcome) = office.try_soon(&mut enter) else {
        return Tried::Waits(enter);
    };
    match outcome.and_then(|()| enter.claimed()) {
        Ok(Some(claim)) => {
            let grant = office.attempts().hold(&enter, claim);
            patrol::look_after_holders(office);
            Tried::Answer(Ok(Some(grant)))
        }
        Ok(None) if enter.request().wait != Wait::Now => Tried::Waits(enter),
        answer => Tried::Answer(answer.map(|_| None)),
    }
}

/// Asks, and waits. Dropping this changes nothing: the attempt is ended by `abandon`.
pub(crate) async fn wait(
    office: Arc<Office>,
    mut enter: Enter,
    is_closed: impl Fn() -> bool + Send,
) -> Result<Option<Grant>> {
    if is_closed() {
        return Err(Error::closed(NAME));
    }
    patrol::watch_sessions(&office);
    let place = match office.attempts().ask(&enter, Arc::new(Handoff::new())) {
        Asked::Holds(grant) => return Ok(Some(grant)),
        Asked::Over => return Err(not_held(enter.key())),
        Asked::Before(place) => place,
        Asked::New(place) => {
            patrol::look_after_waiters(&office);
            if enter.request().wait != Wait::Now {
                enter.queue_up();
            }
            match office.try_soon(&mut enter) {
                Some(outcome) => enter.settle(&office, &outcome),
                None => writer::submit(&office, Box::new(enter)),
            }
            place
        }
    };
    if is_closed() {
        // Closed between the check and the queue: nobody else would end this wait.
        turn_waiters_away(&office);
    }
    let granted = taken(&office, &place).await;
    if matches!(granted, Ok(Some(_))) {
        patrol::look_after_holders(&office);
    }
    granted
}

/// What is put in the place. A thread that waits listens by itself.
async fn taken(office: &Arc<Office>, place: &Place) -> Result<Option<Grant>> {
    let mut ear = None;
    poll_fn(|context| {
        let taken = place.poll_take(context);
        if taken.is_pending() && parks() {
            ear = ear.take().or_else(|| Ear::new(office));
            if let Some(ear) = &ear {
                park_by(Arc::<Ear>::clone(ear));
            }
        }
        taken
    })
    .await
}

/// Ends all waits of this process.
pub(crate) fn turn_waiters_away(office: &Arc<Office>) {
    for leave in office.attempts().drain_waiters(|| Error::closed(NAME)) {
        writer::submit(office, Box::new(leave));
    }
}
