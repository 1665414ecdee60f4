//! A step that waits, seen by the graph.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::graph::{Verdict, WaitGraph};
use super::place::{Holder, Place};
use crate::{BoxFuture, DeadlockEdge, Error, Grant, Request, Result, Wait};

/// Looks before it first polls the backend's future; keeps the graph informed until it is dropped.
pub(super) struct WatchedWait {
    graph: WaitGraph,
    place: Arc<Place>,
    holder: Holder,
    request: Request,
    backend: &'static str,
    /// `None` once it has answered, or was refused unpolled.
    future: Option<BoxFuture<Result<Option<Grant>>>>,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Entered,
    Queued,
    Over,
}

impl WatchedWait {
    pub(super) fn new(
        graph: WaitGraph,
        place: Arc<Place>,
        request: Request,
        backend: &'static str,
        future: BoxFuture<Result<Option<Grant>>>,
    ) -> Self {
        Self {
            graph,
            place,
            holder: Holder::of(&request),
            request,
            backend,
            future: Some(future),
            stage: Stage::New,
        }
    }

    fn enter(&mut self) -> Result<()> {
        self.stage = Stage::Entered;
        // One attempt without waiting: the future is only a round trip.
        if self.request.wait == Wait::Now {
            self.stage = Stage::Queued;
            return Ok(());
        }
        match self
            .graph
            .wait(&self.place, self.holder.owner, &self.request)
        {
            Verdict::Wait => Ok(()),
            Verdict::Suspect(cycle) => {
                warn(&cycle);
                Ok(())
            }
            Verdict::Deadlock(cycle) => {
                self.stage = Stage::Over;
                self.future = None;
                Err(Error::deadlock(cycle)
                    .with_key(&self.place.key)
                    .with_backend(self.backend))
            }
        }
    }

    fn settle(&mut self, outcome: Result<Option<Grant>>) -> Result<Option<Grant>> {
        self.future = None;
        match &outcome {
            Ok(Some(grant)) => self.graph.granted(&self.place, &self.holder, grant),
            Ok(None) | Err(_) => self.graph.withdraw(self.request.attempt),
        }
        self.stage = Stage::Over;
        outcome
    }
}

pub(super) fn warn(cycle: &[DeadlockEdge]) {
    let error = Error::deadlock(cycle.to_vec());
    tracing::warn!(
        cycle = error.message(),
        "tasks or threads seem to wait for each other; name their owners with \
         AcquireOptions::owner to have the acquire refused instead"
    );
}

impl Future for WatchedWait {
    type Output = Result<Option<Grant>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.stage == Stage::New {
            self.enter()?;
        }
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        match future.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(self.settle(outcome)),
            Poll::Pending => {
                if self.stage == Stage::Entered {
                    self.stage = Stage::Queued;
                    self.graph.queued(self.request.attempt);
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for WatchedWait {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Entered | Stage::Queued) {
            self.graph.withdraw(self.request.attempt);
        }
    }
}
