//! The step of an acquire that must wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lock_core::{Error, Grant, LockKey, Request, Result};

use super::details::Known;
use super::tables::{Place, Tables};
use super::{NAME, ask, grant, refusal};
use crate::table::Entered;

/// Queues at the first poll, and waits. Dropping it changes nothing: the attempt is ended by
/// `abandon`.
pub(super) struct Waiting {
    tables: Arc<Tables>,
    place: Place,
    key: LockKey,
    request: Request,
    queued: bool,
}

impl Waiting {
    pub(super) fn new(tables: Arc<Tables>, place: Place, key: LockKey, request: Request) -> Self {
        Self {
            tables,
            place,
            key,
            request,
            queued: false,
        }
    }
}

impl Future for Waiting {
    type Output = Result<Option<Grant>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (table, waker) = (this.tables.current(), context.waker());
        let (key, place, attempt) = (&this.key, &this.place, this.request.attempt);
        if !this.queued {
            this.queued = true;
            let ask = ask(place.hash, &this.request, Some(waker));
            let known = Known::of(&this.request, place.view);
            return match table.enter(&ask, &this.tables.sought(place), known) {
                Ok(Entered::Holds(pass)) => Poll::Ready(grant(attempt, pass).map(Some)),
                Ok(Entered::Contended | Entered::Waits(_)) => Poll::Pending,
                Err(refused) => Poll::Ready(Err(refusal(key, this.request.mode, refused))),
            };
        }
        match table.poll(place.hash, |name| place.is(name), attempt.counter(), waker) {
            Some(Poll::Ready(pass)) => Poll::Ready(grant(attempt, pass).map(Some)),
            Some(Poll::Pending) => Poll::Pending,
            None if table.is_closed() => Poll::Ready(Err(Error::closed(NAME))),
            // It was abandoned, and is never granted.
            None => Poll::Pending,
        }
    }
}
