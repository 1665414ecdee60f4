//! Requests that are sent, or to be sent, and not answered.

use std::collections::BTreeMap;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Change, Error, ErrorKind, Grant, InspectQuery, KeyReport, LockKey, OwnerToken, Released,
    Renewal, Renewed, Request,
};

use super::backend::{Listener, NAME};

/// By number; numbers rise, so the first is the oldest.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Call>,
    last: u64,
}

#[derive(Debug)]
pub(super) struct Call {
    /// When it was asked for, the first time.
    pub(super) since: Instant,
    pub(super) purpose: Purpose,
    /// `None` while there is no connection.
    pub(super) sent: Option<Instant>,
    /// When it counts as unanswered.
    pub(super) until: Instant,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// An acquire or a claim; the attempt itself says when it is sent again.
    Attempt(LockKey, OwnerToken),
    /// A cancel; the debt says when it is sent again.
    Cancel(OwnerToken),
    Renew {
        batch: Vec<Renewal>,
        /// `None` for a look after a reconnect.
        listener: Option<Listener<Vec<Renewed>>>,
    },
    Release {
        key: LockKey,
        attempt: OwnerToken,
        /// An earlier one may have been carried out unheard.
        again: bool,
        listener: Listener<Released>,
    },
    Alter {
        key: LockKey,
        grant: Grant,
        change: Change,
        listener: Listener<Grant>,
    },
    AcquireMany {
        wanted: Vec<(LockKey, Request)>,
        listener: Listener<Option<Vec<Grant>>>,
    },
    Inspect {
        query: InspectQuery,
        listener: Listener<Vec<KeyReport>>,
    },
    Break {
        key: LockKey,
        attempt: Option<OwnerToken>,
        listener: Listener<usize>,
    },
}

impl Calls {
    pub(super) fn add(
        &mut self,
        since: Instant,
        purpose: Purpose,
        sent: Option<Instant>,
        wait: Duration,
    ) -> u64 {
        self.last += 1;
        let until = Instant::now() + wait;
        let call = Call {
            since,
            purpose,
            sent,
            until,
        };
        self.open.insert(self.last, call);
        self.last
    }

    /// The number that the next call will have.
    pub(super) fn next_number(&self) -> u64 {
        self.last + 1
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Call> {
        self.open.remove(&number)
    }

    /// Takes out what nobody answered in time.
    pub(super) fn overdue(&mut self) -> Vec<Call> {
        let now = Instant::now();
        let overdue = self.open.iter().filter(|(_, call)| call.until <= now);
        let overdue: Vec<u64> = overdue.map(|(number, _)| *number).collect();
        overdue
            .iter()
            .filter_map(|number| self.open.remove(number))
            .collect()
    }

    /// Takes out everything, after the connection broke.
    pub(super) fn drain(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// Since when something is unanswered.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.open.values().filter_map(|call| call.sent).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

pub(super) fn unavailable(what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the server did not answer {what}"),
    )
    .with_backend(NAME)
}

pub(super) fn indeterminate(what: &str) -> Error {
    Error::new(
        ErrorKind::Indeterminate,
        format!("the reply to {what} was lost; the backend goes on until it is settled"),
    )
    .with_backend(NAME)
}
