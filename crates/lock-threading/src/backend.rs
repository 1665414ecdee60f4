//! The backend: requests in, steps out.

mod details;
mod name;
mod one_key;
mod tables;
mod waiting;

use std::sync::Arc;
use std::task::Waker;

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, Error, ErrorKind, FencingLife, FencingNumber, Grant, InspectPage,
    InspectQuery, LeaseKind, LockBackend, LockKey, Mode, Ordering, OwnerToken, PlainRequest,
    Released, Renewal, Renewed, Request, Result, Scope, Step, Wait,
};

use crate::Fairness;
use crate::table::{Ask, Entered, Held, Manner, Pass, Refused};
use details::{Known, fence};
pub use one_key::OneKey;
use tables::{Place, Tables};
use waiting::Waiting;

const NAME: &str = "threading";

/// Locks for the tasks and threads of one process.
///
/// Clones share one table, so they exclude each other; two backends made by [`new`](Self::new) do
/// not. What a program builds from configuration should use [`process_wide`](Self::process_wide).
#[derive(Clone, Debug, Default)]
pub struct ThreadingBackend {
    tables: Arc<Tables>,
}

impl ThreadingBackend {
    /// A backend with a table of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend that everything in this process shares.
    #[must_use]
    pub fn process_wide() -> Self {
        static SHARED: std::sync::LazyLock<ThreadingBackend> =
            std::sync::LazyLock::new(ThreadingBackend::new);
        SHARED.clone()
    }

    /// How many keys are held or waited for. Advisory.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.tables.current().len()
    }

    /// The same backend for users of this key alone: the key need not be looked at each time.
    #[must_use]
    pub fn of_key(&self, key: &LockKey) -> OneKey {
        OneKey::new(self.clone(), key.clone())
    }
}

impl Tables {
    #[inline]
    fn acquire(
        self: &Arc<Self>,
        place: &Place,
        key: &LockKey,
        request: &Request,
    ) -> Step<Result<Option<Grant>>> {
        if let Err(error) = check(request) {
            return Step::Ready(Err(error));
        }
        let table = self.current();
        if let Some(manner) = Manner::of(request.mode)
            && !table.is_closed()
        {
            let counter = Some(request.attempt.counter());
            let held = || Held {
                key: place.name.clone(),
                details: Known::of(request, place.view),
            };
            if let Some(number) = table.try_hold(place.hash, counter, manner, held)
                && let Some(fence) = fence(Pass::alone(number, request.mode))
            {
                return Step::Ready(Ok(Some(Grant {
                    attempt: request.attempt,
                    fence,
                    validity: None,
                })));
            }
        }
        self.acquire_crowded(place, key, request)
    }

    #[inline]
    fn acquire_plain(&self, place: &Place, request: &PlainRequest) -> Option<FencingNumber> {
        let table = self.current();
        if table.is_closed() {
            return None;
        }
        let counter = request.attempt.counter();
        let held = || Held {
            key: place.name.clone(),
            details: Known::plain(request, place.view),
        };
        let manner = Manner::EXCLUSIVE.light(place.name.is_light());
        let number = table.try_hold(place.hash, Some(counter), manner, held)?;
        FencingNumber::from_base(number)
    }

    /// The answer when somebody is near.
    #[cold]
    fn acquire_crowded(
        self: &Arc<Self>,
        place: &Place,
        key: &LockKey,
        request: &Request,
    ) -> Step<Result<Option<Grant>>> {
        let ask = ask(place.hash, request, None);
        let known = Known::of(request, place.view);
        let table = self.current();
        match table.enter(&ask, &self.sought(place), known) {
            Ok(Entered::Holds(pass)) => Step::Ready(grant(request.attempt, pass).map(Some)),
            Ok(_) if request.wait == Wait::Now => Step::Ready(Ok(None)),
            Ok(_) => Step::Waiting(Box::pin(Waiting::new(
                Arc::clone(self),
                place.clone(),
                key.clone(),
                request.clone(),
            ))),
            Err(refused) => Step::Ready(Err(refusal(key, request.mode, refused))),
        }
    }
}

#[async_trait]
impl LockBackend for ThreadingBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Process, LeaseKind::KernelHeld);
        capabilities.ordering = Ordering::Global;
        capabilities.fencing = FencingLife::Process;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let place = self.tables.place(key, 0);
        self.tables.acquire(&place, key, request)
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        let place = self.tables.place(key, 0);
        self.tables.acquire_plain(&place, request)
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let place = self.tables.place(key, 0);
        Step::Ready(Ok(released(self.tables.leave(&place, grant.attempt))))
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.tables.leave(&self.tables.place(key, 0), attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let place = self.tables.place(key, 0);
        Step::Ready(self.tables.alter(&place, key, grant, change))
    }

    async fn renew(&self, _batch: &[Renewal]) -> Result<Vec<Renewed>> {
        Err(Error::unsupported(
            NAME,
            "leases: a grant lasts as long as the process",
        ))
    }

    fn acquire_many(&self, _wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        Step::Ready(Err(Error::unsupported(NAME, "several keys in one step")))
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        Ok(self.tables.inspect(&query))
    }

    async fn break_lock(&self, _key: &LockKey, _attempt: Option<OwnerToken>) -> Result<usize> {
        Err(Error::unsupported(
            NAME,
            "breaking a lock: its holder is code of this process; bound it with max_hold instead",
        ))
    }

    async fn close(&self) -> Result<()> {
        self.tables.close();
        Ok(())
    }
}

/// Refuses options that would be promises without anything behind them.
fn check(request: &Request) -> Result<()> {
    if request.ttl.is_some() {
        return Err(Error::unsupported(
            NAME,
            "a TTL: a grant lasts as long as the process",
        ));
    }
    if request.lock_delay.is_some() {
        return Err(Error::unsupported(NAME, "lock_delay"));
    }
    Ok(())
}

fn released(was_ours: bool) -> Released {
    if was_ours {
        Released::Released
    } else {
        Released::AlreadyLost
    }
}

fn ask<'a>(hash: u64, request: &Request, waker: Option<&'a Waker>) -> Ask<'a> {
    Ask {
        hash,
        mode: request.mode,
        priority: request.priority,
        attempt: request.attempt.counter(),
        fairness: Fairness::FirstCome,
        waker,
    }
}

#[inline]
fn grant(attempt: OwnerToken, pass: Pass) -> Result<Grant> {
    Ok(Grant {
        attempt,
        fence: fence(pass).ok_or_else(numbers_used_up)?,
        validity: None,
    })
}

fn refusal(key: &LockKey, wanted: Mode, refused: Refused) -> Error {
    match refused {
        Refused::Conflict(other) => mode_conflict(key, wanted, other),
        Refused::Closed => Error::closed(NAME),
    }
}

/// The error for a mode that can never take turns with the one in use.
fn mode_conflict(key: &LockKey, wanted: Mode, other: Mode) -> Error {
    Error::new(
        ErrorKind::ModeConflict,
        format!("asked for {wanted} while {other} is held or waited for; use one mode per key"),
    )
    .with_key(key)
    .with_backend(NAME)
}

/// The error for a grant that is not in the table.
fn not_held(key: &LockKey) -> Error {
    Error::new(ErrorKind::Lost, "this attempt no longer holds it")
        .with_key(key)
        .with_backend(NAME)
}

/// The error for a slot whose fencing numbers are used up.
fn numbers_used_up() -> Error {
    Error::new(
        ErrorKind::Backend,
        "fencing numbers are used up after 2^51 grants; restart",
    )
    .with_backend(NAME)
}
