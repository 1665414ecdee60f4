//! Passing one value to one waiter.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A place where a waiter finds what it waits for: filled once, taken once.
///
/// The giver gets the waker back instead of waking, so that it can leave its own locks first.
pub struct Handoff<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Empty(Option<Waker>),
    Full(T),
    Over,
}

impl<T> Handoff<T> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(State::Empty(None)),
        }
    }

    /// Puts the value there. Wake the returned waker once no lock is held. A second value is
    /// dropped: a waiter is granted once.
    #[must_use = "the waiter sleeps on unless its waker is woken"]
    pub fn give(&self, value: T) -> Option<Waker> {
        let mut state = self.state();
        match &mut *state {
            State::Empty(waker) => {
                let waker = waker.take();
                *state = State::Full(value);
                waker
            }
            State::Full(_) | State::Over => None,
        }
    }

    /// Takes the value, or leaves the waker.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state();
        if let State::Empty(place) = &mut *state {
            if !place
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                let earlier = place.replace(context.waker().clone());
                // Its drop may run code of the user, which may come back here.
                drop(state);
                drop(earlier);
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Over) {
            State::Full(value) => Poll::Ready(value),
            State::Empty(_) | State::Over => Poll::Pending,
        }
    }

    /// The waker of whoever waits here, without a value: for a waiter that has something to do.
    #[must_use = "the waiter sleeps on unless its waker is woken"]
    pub fn waker(&self) -> Option<Waker> {
        match &*self.state() {
            State::Empty(waker) => waker.clone(),
            State::Full(_) | State::Over => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Handoff<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Handoff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.state() {
            State::Empty(_) => "Handoff(empty)",
            State::Full(_) => "Handoff(full)",
            State::Over => "Handoff(taken)",
        })
    }
}
