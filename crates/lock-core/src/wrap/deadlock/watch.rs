//! What is noted around each call, given the record of its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::waiting::WatchedWait;
use super::{Holder, Place, WaitGraph};
use crate::{
    Anchor, Change, Error, Grant, LockBackend, LockKey, Mode, OwnerId, OwnerToken, Request, Result,
    Step,
};

/// The graph that is told of a backend. Each view of the backend brings itself.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) graph: WaitGraph,
    /// Tells apart equal keys of backends that share a graph.
    backend: u64,
}

impl Watch {
    pub(super) fn new(graph: WaitGraph) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            graph,
            backend: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn place(&self, key: &LockKey) -> Arc<Place> {
        self.graph.place(self.backend, key)
    }

    pub(super) fn acquire(
        &self,
        inner: &(impl LockBackend + ?Sized),
        place: &Arc<Place>,
        key: &LockKey,
        request: &Request,
    ) -> Step<Result<Option<Grant>>> {
        match inner.acquire(key, request) {
            Step::Waiting(future) => Step::Waiting(Box::pin(WatchedWait::new(
                self.graph.clone(),
                Arc::clone(place),
                request.clone(),
                inner.capabilities().name,
                future,
            ))),
            step => {
                if let Step::Ready(Ok(Some(grant))) = &step {
                    place.hold(&Holder::of(request), grant);
                }
                step
            }
        }
    }

    /// Forgets an attempt on a key whose record may not exist.
    pub(super) fn end(&self, key: &LockKey, attempt: OwnerToken) {
        if let Some(place) = self.graph.find(self.backend, key) {
            self.graph.leave(&place, attempt);
            self.graph.forget_if_idle(&place);
        }
    }

    pub(super) fn alter(
        &self,
        inner: &(impl LockBackend + ?Sized),
        place: &Arc<Place>,
        key: &LockKey,
        grant: &Grant,
        change: Change,
    ) -> Step<Result<Grant>> {
        match change {
            Change::Downgrade => self.downgrade(inner, place, key, grant),
            Change::Transfer(owner) => self.transfer(inner, place, key, grant, owner),
            Change::Detach => {
                self.graph.leave(place, grant.attempt);
                let (graph, place) = (self.graph.clone(), Arc::clone(place));
                let step = inner.alter(key, grant, change);
                step.map(move |outcome| {
                    graph.forget_if_idle(&place);
                    outcome
                })
            }
            Change::Attach { owner, mode } => {
                let taken = Holder {
                    attempt: grant.attempt,
                    owner: owner.unwrap_or_else(OwnerId::current),
                    mode,
                    anchor: Anchor::None,
                    site: None,
                };
                self.attach(inner, place, key, grant, change, taken)
            }
        }
    }

    fn downgrade(
        &self,
        inner: &(impl LockBackend + ?Sized),
        place: &Arc<Place>,
        key: &LockKey,
        grant: &Grant,
    ) -> Step<Result<Grant>> {
        let (place, attempt) = (Arc::clone(place), grant.attempt);
        // Before the backend lets shared ones in: they must not be seen behind an exclusive holder.
        place.change(attempt, |holder| holder.mode = Mode::Shared);
        let step = inner.alter(key, grant, Change::Downgrade);
        step.map(move |outcome| {
            if matches!(&outcome, Err(error) if error.changed_nothing()) {
                place.change(attempt, |holder| holder.mode = Mode::Exclusive);
            }
            outcome
        })
    }

    fn transfer(
        &self,
        inner: &(impl LockBackend + ?Sized),
        place: &Arc<Place>,
        key: &LockKey,
        grant: &Grant,
        owner: OwnerId,
    ) -> Step<Result<Grant>> {
        let (place, attempt) = (Arc::clone(place), grant.attempt);
        let before = match self.graph.give(&place, attempt, owner) {
            Ok(before) => before,
            Err(error) => return Step::Ready(Err(refused(inner, key, error))),
        };
        let step = inner.alter(key, grant, Change::Transfer(owner));
        step.map(move |outcome| {
            if let (Err(_), Some(before)) = (&outcome, before) {
                place.change(attempt, |holder| *holder = before);
            }
            outcome
        })
    }

    fn attach(
        &self,
        inner: &(impl LockBackend + ?Sized),
        place: &Arc<Place>,
        key: &LockKey,
        grant: &Grant,
        change: Change,
        taken: Holder,
    ) -> Step<Result<Grant>> {
        if let Err(error) = self.graph.take(place, taken) {
            return Step::Ready(Err(refused(inner, key, error)));
        }
        let (graph, place) = (self.graph.clone(), Arc::clone(place));
        inner.alter(key, grant, change).map(move |outcome| {
            match &outcome {
                // With the signal of its loss.
                Ok(grant) => place.list(taken, grant.validity.clone()),
                Err(_) => {
                    place.leave(taken.attempt);
                    graph.forget_if_idle(&place);
                }
            }
            outcome
        })
    }

    pub(super) fn acquire_many(
        &self,
        inner: &(impl LockBackend + ?Sized),
        wanted: &[(LockKey, Request)],
    ) -> Step<Result<Option<Vec<Grant>>>> {
        let this = self.clone();
        let asked: Vec<_> = wanted
            .iter()
            .map(|(key, request)| (key.clone(), Holder::of(request)))
            .collect();
        inner.acquire_many(wanted).map(move |outcome| {
            if let Ok(Some(grants)) = &outcome {
                for ((key, holder), grant) in asked.iter().zip(grants) {
                    this.place(key).hold(holder, grant);
                }
            }
            outcome
        })
    }
}

fn refused(inner: &(impl LockBackend + ?Sized), key: &LockKey, error: Error) -> Error {
    let name = inner.capabilities().name;
    error.with_key(key).with_backend(name)
}
