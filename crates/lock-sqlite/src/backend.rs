//! The backend: requests in, steps out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::fork::{ForkLocal, undisturbed};
use lock_core::{
    Capabilities, Change, DetachReach, Error, ErrorKind, FencingLife, Grant, Handoff, InspectPage,
    InspectQuery, LeaseKind, LockBackend, LockKey, Mode, Ordering as Order, OwnerId, OwnerToken,
    Released, Renewal, Renewed, Request, Result, Scope, Step,
};

use crate::alter::{Downgrade, Renew, Transfer};
use crate::batch::Command;
use crate::breaking::Break;
use crate::config::SqliteConfig;
use crate::enter::Enter;
use crate::error::{NAME, mode_conflict, not_held};
use crate::location::Location;
use crate::many::Many;
use crate::office::{Office, open_database};
use crate::sweep::Sweep;
use crate::turn::{self, Tried};
use crate::writer;
use crate::{inspect, patrol, sweep};

/// Locks for the processes of one host, kept with their queue in one SQLite database.
///
/// Backends of one file exclude each other, in one process and between processes. Clones share one
/// connection. A forked child starts anew, and leaves its parent's locks alone.
#[derive(Clone, Debug)]
pub struct SqliteBackend {
    shared: Arc<Shared>,
}

/// What clones share.
#[derive(Debug)]
struct Shared {
    config: SqliteConfig,
    location: Location,
    closed: AtomicBool,
    office: ForkLocal<Mutex<Option<Arc<Office>>>>,
}

impl SqliteBackend {
    /// Makes the database ready: the directory, the file, the tables. Starts nothing, and leaves
    /// nothing open.
    ///
    /// # Errors
    /// `InvalidConfig` for a file that cannot be one, or holds something else; `PermissionDenied` for
    /// one that is not this user's, or read-only; `Unavailable` when it is locked, in use by a release
    /// with an older format, or the file system is full. What was there stays as it was.
    ///
    /// # Blocking
    /// Some system calls; as long as `busy_limit` when another program keeps the file locked.
    pub fn open(config: SqliteConfig) -> Result<Self> {
        let location = Location::prepare(&config)?;
        {
            let _calm = undisturbed();
            drop(open_database(&config, &location)?);
        }
        location.make_sessions(&config)?;
        let shared = Shared {
            config,
            location,
            closed: AtomicBool::new(false),
            office: ForkLocal::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The database file, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.location.database
    }

    /// Forgets what dead processes left, and every key that nobody holds or waits for. Fencing tokens
    /// rise on. Returns how many keys were forgotten.
    ///
    /// # Errors
    /// As an acquire.
    ///
    /// # Cancel safety
    /// What was begun is finished.
    pub async fn sweep(&self) -> Result<usize> {
        let office = self.shared.office()?;
        let (swept, outcome) = office.perform(Sweep::default()).await;
        outcome?;
        sweep::remove_files(office.sessions(), &swept.buried);
        Ok(swept.keys)
    }

    fn ttl(&self, request: &Request) -> Option<Duration> {
        self.shared.config.ttl.map(|ttl| request.ttl.unwrap_or(ttl))
    }

    /// Refuses options that would be promises without anything behind them.
    fn check(&self, request: &Request) -> Result<()> {
        if request.ttl.is_some() && self.shared.config.ttl.is_none() {
            return Err(Error::unsupported(
                NAME,
                "a TTL unless `ttl` is set: a grant lasts as long as the process",
            ));
        }
        if request.lock_delay.is_some() {
            return Err(Error::unsupported(NAME, "lock_delay"));
        }
        Ok(())
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What belongs to this process, begun on first use.
    fn office(&self) -> Result<Arc<Office>> {
        if self.is_closed() {
            return Err(Error::closed(NAME));
        }
        let mut place = self.place();
        if let Some(office) = &*place {
            if office.is_current() {
                return Ok(Arc::clone(office));
            }
            // Another file is there, or none.
            office.lose();
            *place = None;
        }
        let office = Office::open(&self.config, &self.location)?;
        *place = Some(Arc::clone(&office));
        Ok(office)
    }

    /// What belongs to this process, if it has begun.
    fn begun(&self) -> Option<Arc<Office>> {
        let office = self.office.get()?;
        office
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Office>>> {
        self.office
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LockBackend for SqliteBackend {
    fn capabilities(&self) -> Capabilities {
        let lease = match self.shared.config.ttl {
            Some(_) => LeaseKind::PerGrant,
            None => LeaseKind::KernelHeld,
        };
        let mut capabilities = Capabilities::new(NAME, Scope::Host, lease);
        capabilities.ordering = Order::Global;
        capabilities.fencing = FencingLife::Store;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        capabilities.acquire_many = true;
        capabilities.break_lock = true;
        capabilities.detach = DetachReach::Process;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = self.check(request) {
            return Step::Ready(Err(error));
        }
        let office = match self.shared.office() {
            Ok(office) => office,
            Err(error) => return Step::Ready(Err(error)),
        };
        match turn::try_now(&office, Enter::new(key, request, self.ttl(request))) {
            Tried::Answer(answer) => Step::Ready(answer),
            Tried::Waits(enter) => {
                let shared = Arc::clone(&self.shared);
                Step::wait(turn::wait(office, enter, move || shared.is_closed()))
            }
        }
    }

    fn release(&self, _key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let attempt = grant.attempt;
        let known = self.shared.begun().and_then(|office| {
            if !office.is_current() {
                office.lose();
            }
            let leave = office.attempts().leave(attempt)?;
            Some((office, leave))
        });
        let Some((office, mut leave)) = known else {
            return Step::Ready(Ok(Released::AlreadyLost));
        };
        if let Some(outcome) = office.try_soon(&mut leave) {
            leave.settle(&office, &outcome);
            return Step::Ready(outcome.map(|()| leave.released()));
        }
        Step::wait(async move {
            let (leave, outcome) = office.perform(leave).await;
            outcome.map(|()| leave.released())
        })
    }

    fn abandon(&self, _key: &LockKey, attempt: OwnerToken) {
        let known = self.shared.begun().and_then(|office| {
            let leave = office.attempts().leave(attempt)?;
            Some((office, leave))
        });
        let Some((office, mut leave)) = known else {
            return;
        };
        match office.try_now(&mut leave, Duration::ZERO) {
            Some(outcome) => {
                leave.settle(&office, &outcome);
            }
            None => writer::submit(&office, Box::new(leave)),
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (key, attempt) = (key.clone(), grant.attempt);
        let held = self
            .shared
            .begun()
            .and_then(|office| office.attempts().held(attempt).map(|grant| (office, grant)));
        let Some((office, grant)) = held else {
            return Step::Ready(Err(not_held(&key)));
        };
        match change {
            Change::Downgrade => Step::wait(downgrade(office, key, grant)),
            Change::Transfer(owner) => Step::wait(answer_for(office, key, grant, Some(owner))),
            // Expired or broken meanwhile: only the database knows at once.
            Change::Attach { owner, .. } => Step::wait(answer_for(office, key, grant, owner)),
            Change::Detach => Step::Ready(match office.is_current() {
                true => Ok(grant),
                false => Err(not_held(&key)),
            }),
            _ => Step::Ready(Err(Error::unsupported(NAME, "this change"))),
        }
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        if self.shared.config.ttl.is_none() {
            return Err(Error::unsupported(
                NAME,
                "leases unless `ttl` is set: a grant lasts as long as the process",
            ));
        }
        let renew = Renew {
            batch: batch.to_vec(),
            until: Vec::new(),
        };
        let Some(office) = self.shared.begun() else {
            return Ok(batch.iter().map(|_| Renewed::Lost).collect());
        };
        let (renew, outcome) = office.perform(renew).await;
        outcome?;
        let renewed = renew.until.into_iter();
        Ok(renewed
            .map(|until| until.map_or(Renewed::Lost, Renewed::Until))
            .collect())
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        for (_, request) in wanted {
            if let Err(error) = self.check(request) {
                return Step::Ready(Err(error));
            }
        }
        let backend = self.clone();
        let wanted = wanted.to_vec();
        Step::wait(async move { backend.enter_many(wanted).await })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        let office = self.shared.office()?;
        apart(move || inspect::page(&office, &query)).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        let office = self.shared.office()?;
        let breaking = Break {
            key: key.clone(),
            attempt,
            broken: 0,
        };
        let (breaking, outcome) = office.perform(breaking).await;
        outcome.map(|()| breaking.broken)
    }

    async fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        let Some(office) = self.shared.begun() else {
            return Ok(());
        };
        turn::turn_waiters_away(&office);
        if office.attempts().count().holding == 0 {
            // What still leaves keeps the office until it is done.
            let ours = self.shared.place().take();
            return apart(move || {
                drop((ours, office));
                Ok(())
            })
            .await;
        }
        Ok(())
    }
}

impl SqliteBackend {
    async fn enter_many(&self, wanted: Vec<(LockKey, Request)>) -> Result<Option<Vec<Grant>>> {
        let office = self.shared.office()?;
        let mut enters = Vec::with_capacity(wanted.len());
        for (key, request) in &wanted {
            // Known before it is asked for, so that whoever abandons it is heard.
            let enter = Enter::new(key, request, self.ttl(request));
            office.attempts().ask(&enter, Arc::new(Handoff::new()));
            enters.push(enter);
        }
        let (many, outcome) = office.perform(Many::new(enters)).await;
        outcome?;
        many.refusal()?;
        if many.grants.is_some() {
            patrol::look_after_holders(&office);
        }
        Ok(many.grants)
    }
}

/// Checks that it is still held, and notes the new owner.
async fn answer_for(
    office: Arc<Office>,
    key: LockKey,
    grant: Grant,
    owner: Option<OwnerId>,
) -> Result<Grant> {
    let transfer = Transfer {
        key,
        attempt: grant.attempt,
        owner,
        held: false,
    };
    let (transfer, outcome) = office.perform(transfer).await;
    outcome?;
    match transfer.held {
        true => Ok(grant),
        false => Err(not_held(&transfer.key)),
    }
}

async fn downgrade(office: Arc<Office>, key: LockKey, grant: Grant) -> Result<Grant> {
    let attempt = grant.attempt;
    let downgrade = Downgrade {
        key,
        attempt,
        outcome: None,
    };
    let (downgrade, outcome) = office.perform(downgrade).await;
    outcome?;
    match downgrade.outcome {
        Some(Ok(claim)) => {
            let altered = office.attempts().downgrade(attempt, claim);
            altered.ok_or_else(|| not_held(&downgrade.key))
        }
        Some(Err(other)) => Err(mode_conflict(&downgrade.key, Mode::Shared, other)),
        None => Err(not_held(&downgrade.key)),
    }
}

/// Reads that may take a while, on a thread for such.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = lock_core::runtime::handle().spawn_blocking(work).await;
    done.unwrap_or_else(|source| {
        let message = "the work on the database panicked";
        Err(crate::error::error(ErrorKind::Backend, message).with_source(source))
    })
}
