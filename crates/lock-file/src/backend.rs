//! The backend: requests in, steps out.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::host::{is_want_of_files, private_directory};
use lock_core::{
    Capabilities, Change, DetachReach, Error, FencingLife, Grant, InspectPage, InspectQuery,
    LeaseKind, LockBackend, LockKey, Ordering as Order, OwnerToken, Released, Renewal, Renewed,
    Request, Result, Scope, Step, Wait,
};

use crate::config::FileConfig;
use crate::contend::{Waiter, contend};
use crate::entry::{KeyCell, KeyState};
use crate::error::{NAME, named, not_held};
use crate::seat::{Aftermath, ForTask};
use crate::table::Table;
use crate::watchman::Watchman;
use crate::{breaking, inspect, sweep};

/// Locks for the processes of one host, kept by the kernel on files.
///
/// Backends of one directory exclude each other, in one process and between processes. Clones share
/// their open files. A forked child starts anew, and leaves its parent's locks alone.
#[derive(Clone, Debug)]
pub struct FileBackend {
    shared: Arc<Shared>,
}

/// What clones share.
#[derive(Debug)]
pub(crate) struct Shared {
    directory: PathBuf,
    pub(crate) backup_poll: Duration,
    closed: AtomicBool,
    state: ForkLocal<State>,
}

/// What belongs to one process.
#[derive(Debug)]
struct State {
    table: Table,
    watchman: Watchman,
}

impl FileBackend {
    /// Makes the directory ready, and checks that it is private and that its file system excludes.
    /// Starts nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for a directory that cannot be one, `PermissionDenied` for one that is not
    /// this user's alone, `Unavailable` when the file system is full. Nothing is left behind then.
    ///
    /// # Blocking
    /// Some system calls on the directory.
    pub fn open(config: FileConfig) -> Result<Self> {
        let wanted = match &config.directory {
            Some(directory) => directory.clone(),
            None => FileConfig::per_user_directory(),
        };
        let directory = private_directory(&wanted, config.network_filesystem).map_err(named)?;
        let shared = Shared {
            directory,
            backup_poll: config.backup_poll.max(Duration::from_millis(1)),
            closed: AtomicBool::new(false),
            state: ForkLocal::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The directory of the lock files, as an absolute path.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Removes the files of all keys that were not used for `unused_for`, in any process, and
    /// returns how many keys that were. Nothing else ever removes files.
    ///
    /// It may run while other processes use the directory: nobody's lock is lost, and fencing
    /// numbers go on rising. A try that meets the removal of its key finds it contended.
    ///
    /// # Errors
    /// `PermissionDenied` or `Unavailable` when a file cannot be read or removed; the files before
    /// it are gone then.
    ///
    /// # Cancel safety
    /// Dropping it does not stop the sweep.
    pub async fn sweep(&self, unused_for: Duration) -> Result<usize> {
        let shared = Arc::clone(&self.shared);
        apart(move || sweep::sweep(&shared, unused_for)).await
    }

    fn downgrade(&self, key: &LockKey, attempt: OwnerToken) -> Result<Grant> {
        self.shared
            .on_key(key, |state| match state.downgrade(key, attempt) {
                Ok((grant, aftermath)) => (Ok(grant), aftermath),
                Err(error) => (Err(named(error)), Aftermath::default()),
            })
            .unwrap_or_else(|| Err(not_held(key)))
    }
}

impl Shared {
    fn state(&self) -> &State {
        self.state.get_or_init(|| State {
            table: Table::new(&self.directory),
            watchman: Watchman::default(),
        })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.state().table
    }

    pub(crate) fn watchman(&self) -> &Watchman {
        &self.state().watchman
    }

    /// Works on the state of a key that is known here, and settles what follows.
    pub(crate) fn on_key<R>(
        self: &Arc<Self>,
        key: &LockKey,
        work: impl FnOnce(&mut KeyState) -> (R, Aftermath),
    ) -> Option<R> {
        let found = self
            .table()
            .with_known(key, |cell, state| (work(state), Arc::clone(cell)));
        found.map(|((outcome, aftermath), cell)| {
            self.settle(&cell, aftermath);
            outcome
        })
    }

    /// Does what had to wait until the key's lock was left.
    pub(crate) fn settle(self: &Arc<Self>, cell: &Arc<KeyCell>, aftermath: Aftermath) {
        match aftermath.run() {
            ForTask::Nothing => {}
            ForTask::Nudge => cell.nudge.notify_one(),
            ForTask::Start => {
                let task = contend(Arc::clone(self), Arc::clone(cell));
                lock_core::runtime::handle().spawn(task);
            }
        }
    }

    /// The first contact of an attempt. `None`: contended.
    fn ask(self: &Arc<Self>, key: &LockKey, request: &Request) -> Result<Option<Grant>> {
        self.check_open()?;
        let ask = || {
            self.table()
                .with(key, |_, state| state.try_enter(key, request))
        };
        let granted = self
            .or_make_room(ask())
            .unwrap_or_else(ask)
            .map_err(named)?;
        if granted.is_some() {
            self.watchman().watch(self);
        }
        Ok(granted)
    }

    /// `None`: it wanted for descriptors, and files that nobody uses were closed; try again.
    fn or_make_room<T>(&self, outcome: Result<T>) -> Option<Result<T>> {
        let wanting = outcome.as_ref().is_err_and(is_want_of_files);
        if wanting {
            self.table().close_idle();
        }
        (!wanting).then_some(outcome)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed(NAME));
        }
        Ok(())
    }
}

/// Queues and waits. Dropping this changes nothing: the attempt is ended by `abandon`.
async fn wait_turn(shared: Arc<Shared>, key: LockKey, request: Request) -> Result<Option<Grant>> {
    shared.check_open()?;
    let outcome = queue_up(&shared, &key, &request).await;
    let granted = match shared.or_make_room(outcome) {
        Some(outcome) => outcome,
        None => queue_up(&shared, &key, &request).await,
    };
    let granted = granted.map_err(named)?;
    shared.watchman().watch(&shared);
    Ok(granted)
}

async fn queue_up(shared: &Arc<Shared>, key: &LockKey, request: &Request) -> Result<Option<Grant>> {
    let (queued, cell) = shared.table().with(key, |cell, state| {
        (state.enqueue(key, request), Arc::clone(cell))
    });
    let (place, aftermath) = queued?;
    shared.settle(&cell, aftermath);
    if shared.closed.load(Ordering::Acquire) {
        // Closed between the check and the queue: nobody else would end this wait.
        shared.on_key(key, |state| ((), state.drain(|| Error::closed(NAME))));
    }
    let mut waiter = Waiter::new(shared, cell, request.attempt, place);
    poll_fn(|context| waiter.poll(context)).await
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

#[async_trait]
impl LockBackend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Host, LeaseKind::KernelHeld);
        capabilities.ordering = Order::PerProcess;
        capabilities.fencing = FencingLife::Store;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        capabilities.break_lock = true;
        capabilities.detach = DetachReach::Process;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = check(request) {
            return Step::Ready(Err(error));
        }
        match self.shared.ask(key, request) {
            Ok(None) if request.wait != Wait::Now => Step::wait(wait_turn(
                Arc::clone(&self.shared),
                key.clone(),
                request.clone(),
            )),
            answer => Step::Ready(answer),
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let held = self
            .shared
            .on_key(key, |state| state.leave(key, grant.attempt));
        Step::Ready(Ok(match held {
            Some(true) => Released::Released,
            Some(false) | None => Released::AlreadyLost,
        }))
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.shared.on_key(key, |state| state.leave(key, attempt));
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let attempt = grant.attempt;
        let held = |state: &mut KeyState| state.granted(attempt).ok_or_else(|| not_held(key));
        match change {
            Change::Downgrade => Step::Ready(self.downgrade(key, attempt)),
            Change::Transfer(owner) => Step::Ready(
                self.shared
                    .on_key(key, |state| {
                        (
                            state.transfer(key, attempt, owner).map_err(named),
                            Aftermath::default(),
                        )
                    })
                    .unwrap_or_else(|| Err(not_held(key))),
            ),
            Change::Detach | Change::Attach { .. } => Step::Ready(
                self.shared
                    .on_key(key, |state| {
                        let damage = state.check(key);
                        (held(state), damage)
                    })
                    .unwrap_or_else(|| Err(not_held(key))),
            ),
            _ => Step::Ready(Err(Error::unsupported(NAME, "this change"))),
        }
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
        let shared = Arc::clone(&self.shared);
        apart(move || inspect::page(&shared, &query)).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        apart(move || breaking::break_lock(&shared, &key, attempt)).await
    }

    async fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        for cell in self.shared.table().cells() {
            let aftermath = cell.state().drain(|| Error::closed(NAME));
            self.shared.settle(&cell, aftermath);
        }
        self.shared.table().close_idle();
        Ok(())
    }
}

/// Runs file operations that may take a while on a thread for such.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = lock_core::runtime::handle().spawn_blocking(work).await;
    done.map(|outcome| outcome.map_err(named))
        .unwrap_or_else(|source| {
            Err(
                crate::error::error(lock_core::ErrorKind::Backend, "the work on files panicked")
                    .with_source(source),
            )
        })
}
