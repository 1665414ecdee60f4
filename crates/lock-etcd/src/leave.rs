//! Out of the store: a holder that gives its lock back, an attempt that was given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{ErrorKind, Handoff, Released, Request, Result, runtime};

use crate::client::{Client, Hold};
use crate::error::{Failure, Reason, error};
use crate::grant::Won;
use crate::layout::Place;
use crate::line::Stand;
use crate::session::Session;
use crate::watch::Target;
use crate::wire::{Answered, Compare, Operation, TxnRequest};

/// So often the next ones are sought before a holder simply leaves: they look themselves, too.
const HAND_OVERS: usize = 4;
/// How long to wait before the store is asked again, the first time and at most.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_AT_MOST: Duration = Duration::from_secs(2);

/// What may stand in the store of an attempt that was given up.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    place: Place,
    request: Request,
    session: Arc<Session>,
    /// How the gate was when a request was made that may still be on its way.
    in_doubt: Option<i64>,
}

impl Left {
    pub(crate) fn new(
        place: &Place,
        request: &Request,
        session: &Arc<Session>,
        in_doubt: Option<i64>,
    ) -> Self {
        Self {
            place: place.clone(),
            request: request.clone(),
            session: Arc::clone(session),
            in_doubt,
        }
    }

    pub(crate) fn attempt(&self) -> lock_core::OwnerToken {
        self.request.attempt
    }

    pub(crate) fn key(&self) -> &lock_core::LockKey {
        &self.place.key
    }

    pub(crate) fn holder(won: &Won) -> Self {
        Self::new(&won.place, &won.request, &won.session, None)
    }
}

/// Deletes what stands of an attempt, whatever it is, until that is confirmed.
pub(crate) async fn clear(client: &Arc<Client>, mut left: Left) {
    let mut pause = AGAIN;
    // Once the session is over, its end is its own to confirm.
    while left.session.is_alive() {
        match clear_once(client, &mut left).await {
            Ok(()) => return,
            Err(failure) if failure.reason == Reason::NoLease => return,
            Err(failure) => {
                tracing::debug!(error = %failure.into_error(), "an abandoned attempt is not gone");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_AT_MOST);
    }
}

async fn clear_once(client: &Arc<Client>, left: &mut Left) -> Result<(), Failure> {
    let (place, request) = (&left.place, &left.request);
    if let Some(gate_at) = left.in_doubt {
        left.session.shut_out(&client.cluster, gate_at).await?;
        left.in_doubt = None;
    }
    let holder = place.holder(request.mode, request.attempt);
    let mut txn = TxnRequest::default();
    txn.compare.push(Compare::absent(holder));
    let waiter = place.waiter(request.mode, request.priority, request.attempt);
    txn.success.push(Operation::delete(waiter));
    txn.failure.push(Operation::read(&place.all()));
    let answer = client.cluster.txn(txn).await?;
    if answer.succeeded {
        return Ok(());
    }
    let line = client.take_in(place, answer.into_ranges().last());
    let held = line.as_ref().and_then(|line| line.holder(request.attempt));
    if let Some(held) = held {
        let stand = Stand {
            attempt: request.attempt,
            mode: held.mode,
            created: held.created,
        };
        leave(client, place, &stand).await?;
    }
    Ok(())
}

/// Takes a holder out and lets the next ones in, as far as it is known here who they are. Returns
/// whether it was there.
pub(crate) async fn leave(
    client: &Arc<Client>,
    place: &Place,
    stand: &Stand,
) -> Result<bool, Failure> {
    let mut plan = client.mirror.leaving(place, stand);
    for _ in 0..HAND_OVERS {
        let Some(next) = plan.filter(|plan| !plan.lets_in.is_empty()) else {
            break;
        };
        let answer = client.cluster.txn(next.txn.clone()).await?;
        if answer.succeeded {
            client.mirror.carried_out(place, &next, answer.revision());
            return Ok(true);
        }
        let Some(line) = client.take_in(place, answer.into_ranges().last()) else {
            break;
        };
        plan = line.leave(stand);
        if plan.is_none() {
            return Ok(false);
        }
    }
    // Whoever waits hears of it. No later attempt has this name, so there is nothing to compare.
    let holder = place.holder(stand.mode, stand.attempt);
    client.cluster.delete(holder).await
}

/// Ends a grant, and goes on until the store has confirmed it. Whoever listens hears the outcome, or
/// that it does not come.
pub(crate) async fn end(
    client: Arc<Client>,
    hold: Arc<Hold>,
    listener: Option<Arc<Handoff<Result<Released>>>>,
) {
    if hold.watched.load(Ordering::Acquire) {
        client.watches.remove(Target::Holder(hold.attempt));
    }
    let tell = |outcome: Result<Released>| {
        if let Some(waker) = listener
            .as_ref()
            .and_then(|listener| listener.give(outcome))
        {
            runtime::wake(waker);
        }
    };
    // A change that is under way may alter what is to be deleted.
    let _changed = hold.changing.lock().await;
    let stand = hold.stand();
    let until = Instant::now() + client.config().patience;
    let (mut pause, mut in_doubt) = (AGAIN, false);
    let outcome = loop {
        let detached = hold.detached.load(Ordering::Acquire);
        if !detached && !hold.session.is_alive() {
            break Ok(Released::AlreadyLost);
        }
        match leave(&client, &hold.place, &stand).await {
            Ok(true) => break Ok(Released::Released),
            // It may be our own doing.
            Ok(false) if in_doubt => {
                break Err(error(
                    ErrorKind::Indeterminate,
                    "the reply to the release was lost; the lock is free now",
                ));
            }
            Ok(false) => break Ok(Released::AlreadyLost),
            Err(failure) => {
                in_doubt |= failure.in_doubt;
                if until.has_passed() || !failure.passing {
                    tell(Err(failure.into_outcome()));
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_AT_MOST);
    };
    client.table.forget(hold.attempt);
    tell(outcome);
    client.finish_if_done();
}
