//! The backend: requests in, steps out.

use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, Error, ErrorKind, FencingLife, Grant, InspectPage, InspectQuery,
    LeaseKind, LockBackend, LockKey, Mode, Ordering, OwnerToken, Released, Renewal, Renewed,
    Request, Result, Scope, Step, Wait,
};

use crate::table::{Entered, Tables};

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
        if let Err(error) = check(request) {
            return Step::Ready(Err(error));
        }
        match self.tables.current().try_enter(key, request) {
            Ok(Some(grant)) => Step::Ready(Ok(Some(grant))),
            Ok(None) if request.wait == Wait::Now => Step::Ready(Ok(None)),
            Ok(None) => Step::wait(wait_turn(
                Arc::clone(&self.tables),
                key.clone(),
                request.clone(),
            )),
            Err(error) => Step::Ready(Err(error)),
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let was_ours = self.tables.current().leave(key, grant.attempt);
        Step::Ready(Ok(if was_ours {
            Released::Released
        } else {
            Released::AlreadyLost
        }))
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.tables.current().leave(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        Step::Ready(self.tables.current().alter(key, grant, change))
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
        Ok(self.tables.current().inspect(&query))
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

/// Queues and waits. Dropping this changes nothing: the attempt is ended by `abandon`.
async fn wait_turn(tables: Arc<Tables>, key: LockKey, request: Request) -> Result<Option<Grant>> {
    match tables.current().enter_or_enqueue(&key, &request)? {
        Entered::Holds(grant) => Ok(Some(grant)),
        Entered::Waits(turn) => poll_fn(|context| turn.poll_take(context)).await.map(Some),
    }
}

/// The error for a mode that can never take turns with the one in use.
pub(crate) fn mode_conflict(key: &LockKey, wanted: Mode, other: Mode) -> Error {
    Error::new(
        ErrorKind::ModeConflict,
        format!("asked for {wanted} while {other} is held or waited for; use one mode per key"),
    )
    .with_key(key)
    .with_backend(NAME)
}

/// The error for a grant that is not in the table.
pub(crate) fn not_held(key: &LockKey) -> Error {
    Error::new(ErrorKind::Lost, "this attempt no longer holds it")
        .with_key(key)
        .with_backend(NAME)
}

/// The error for a backend that grants no more.
pub(crate) fn closed() -> Error {
    Error::closed(NAME)
}

/// The error for a shard whose fencing numbers are used up.
pub(crate) fn numbers_used_up() -> Error {
    Error::new(
        ErrorKind::Backend,
        "fencing numbers are used up after 2^51 grants; restart",
    )
    .with_backend(NAME)
}
