//! What a backend has in one process: the connection, the session, the attempts.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::Duration;

use lock_core::fork::{InheritedDescriptor, undisturbed};
use lock_core::{
    Error, ErrorKind, Handoff, LockKey, OwnerToken, ProcessNonce, ProcessRecord, Result, runtime,
};
use tokio::io::Interest;
use tokio::task::AbortHandle;

use crate::attempts::Attempts;
use crate::batch::{Command, run_one};
use crate::config::SqliteConfig;
use crate::database::Database;
use crate::error::{NAME, error, failed, is_busy};
use crate::inherited::{self, Engine};
use crate::location::Location;
use crate::log::{self, Log};
use crate::mail::{self, Mailbox};
use crate::news::{Item, News};
use crate::patrol::Rounds;
use crate::session::Session;
use crate::writer::{self, Carried, Inbox};
use crate::{schema, sweep};

/// How long a caller's own thread may wait for another process that writes. After that the command is
/// the writer's.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a backend has in one process.
#[derive(Debug)]
pub(crate) struct Office {
    location: Location,
    config: SqliteConfig,
    /// Device and inode of the database that is open.
    identity: Option<(u64, u64)>,
    engine: Arc<Engine>,
    log: Log,
    session: OnceLock<Session>,
    mailbox: Option<Mailbox>,
    /// The waiting thread that reads the mail has it.
    listener: Mutex<()>,
    attempts: Attempts,
    inbox: Inbox,
    rounds: Rounds,
    tasks: Mutex<Vec<AbortHandle>>,
    lost: AtomicBool,
    /// The key that was given back last, if it went to a waiter: whoever wants it has to wait.
    handed_over: Mutex<Option<LockKey>>,
}

impl Office {
    /// Opens the database and begins a session in it.
    pub(crate) fn open(config: &SqliteConfig, location: &Location) -> Result<Arc<Self>> {
        let calm = undisturbed();
        let mut database = open_database(config, location)?;
        let sqlite = |source| failed(&location.database, source);
        let log = Log::follow(&mut database).map_err(sqlite)?;
        let identity = location.identity();
        location.make_sessions(config)?;
        let session = Session::begin(&location.sessions)?;
        // Before the session is known, so that nobody writes in vain.
        let mailbox = Mailbox::open(&location.sessions, session.id())
            .inspect_err(|error| tracing::warn!(%error, "no socket, waiters poll"))
            .ok();
        let mut enrol = sweep::Enrol::new(location);
        let enrolled = run_one(&database, &session, &mut enrol).map_err(sqlite);
        let news = enrolled.and_then(|news| enrol.outcome().map(|()| news))?;
        sweep::remove_files(&location.sessions, &enrol.buried());
        let engine = Arc::new(Mutex::new(Some(database)));
        inherited::register(&engine);
        drop(calm);
        let office = Arc::new(Self {
            location: location.clone(),
            config: config.clone(),
            identity,
            engine,
            log,
            session: OnceLock::from(session),
            mailbox,
            listener: Mutex::default(),
            attempts: Attempts::default(),
            inbox: Inbox::default(),
            rounds: Rounds::default(),
            tasks: Mutex::default(),
            lost: AtomicBool::new(false),
            handed_over: Mutex::default(),
        });
        office.listen();
        office.deliver(news);
        Ok(office)
    }

    /// Runs a command on this thread, unless the connection is at work or another process keeps it
    /// waiting: `None`, nothing was done.
    pub(crate) fn try_now(
        self: &Arc<Self>,
        command: &mut dyn Command,
        patience: Duration,
    ) -> Option<Result<()>> {
        if self.inbox.is_preferred() || self.log.is_full() {
            return None;
        }
        let calm = undisturbed();
        let engine = match self.engine.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !self.inbox.is_empty() {
            return None;
        }
        let Some(database) = engine.as_ref() else {
            return Some(Err(closed()));
        };
        database.be_patient(patience);
        let outcome = match run_one(database, self.session(), command) {
            Err(source) if is_busy(&source) => return None,
            outcome => outcome.map_err(|source| self.failed(source)),
        };
        drop(engine);
        drop(calm);
        log::keep_short(self);
        if !self.inbox.is_empty() {
            writer::start(self);
        }
        Some(outcome.map(|news| self.deliver(news)))
    }

    /// [`try_now`](Self::try_now) with the patience that a call may have.
    pub(crate) fn try_soon(self: &Arc<Self>, command: &mut dyn Command) -> Option<Result<()>> {
        self.try_now(command, PATIENCE)
    }

    /// Runs a command, on this thread if it can be, and settles it. Once it is polled the command runs,
    /// whoever listens.
    pub(crate) async fn perform<C: Command + 'static>(
        self: &Arc<Self>,
        mut command: C,
    ) -> (C, Result<()>) {
        if let Some(outcome) = self.try_soon(&mut command) {
            command.settle(self, &outcome);
            return (command, outcome);
        }
        let answer = Arc::new(Handoff::new());
        writer::submit(self, Carried::new(command, &answer));
        std::future::poll_fn(|context| answer.poll_take(context)).await
    }

    /// Tells everyone whom a transaction concerns.
    pub(crate) fn deliver(&self, news: News) {
        if news.is_empty() {
            return;
        }
        let own = self.session().id();
        let mut others: Vec<(i64, Vec<(u64, Item)>)> = Vec::new();
        for (seat, item) in news {
            if seat.session == own {
                self.hear(seat.attempt, item);
                continue;
            }
            match others
                .iter_mut()
                .find(|(session, _)| *session == seat.session)
            {
                Some((_, letters)) => letters.push((seat.attempt, item)),
                None => others.push((seat.session, vec![(seat.attempt, item)])),
            }
        }
        let Some(mailbox) = &self.mailbox else { return };
        for (session, letters) in others {
            mailbox.send(session, &letters);
        }
    }

    fn hear(&self, attempt: u64, item: Item) {
        let attempt = OwnerToken::from_parts(ProcessNonce::current(), attempt);
        match item {
            Item::Granted(claim) => self.attempts.grant(attempt, claim),
            Item::Revoked => self.attempts.revoke(attempt),
        }
    }

    /// Receives what other processes send.
    fn listen(self: &Arc<Self>) {
        let Some(Ok((in_child, socket))) = self.mailbox.as_ref().map(Mailbox::receiver) else {
            return;
        };
        let office = Arc::downgrade(self);
        self.keep(runtime::handle().spawn(receive(office, in_child, socket)));
    }

    /// A task that ends with this value.
    pub(crate) fn keep(&self, task: tokio::task::JoinHandle<()>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    /// A key was given back, to the next one in the queue or to nobody.
    pub(crate) fn note_release(&self, key: &LockKey, is_handed_over: bool) {
        let mut last = self.last_handed_over();
        if is_handed_over {
            *last = Some(key.clone());
        } else if last.as_ref() == Some(key) {
            *last = None;
        }
    }

    /// Whether a key went to a waiter when it was given back here last.
    pub(crate) fn is_handed_over(&self, key: &LockKey) -> bool {
        self.last_handed_over().as_ref() == Some(key)
    }

    fn last_handed_over(&self) -> MutexGuard<'_, Option<LockKey>> {
        self.handed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others still find the database that is open here.
    pub(crate) fn is_current(&self) -> bool {
        !self.lost.load(Ordering::Acquire) && self.location.identity() == self.identity
    }

    /// Whether others can still tell that this process lives.
    pub(crate) fn session_is_current(&self) -> bool {
        self.session().is_current()
    }

    /// The files are gone: everything that was held is lost.
    pub(crate) fn lose(&self) {
        if self.lost.swap(true, Ordering::AcqRel) {
            return;
        }
        let shown = self.location.database.display();
        tracing::error!(database = %shown, "deleted or replaced while in use: all its locks are lost");
        self.attempts.lose_all(|| {
            let message = format!("{shown} was deleted or replaced; acquire again");
            error(ErrorKind::Unavailable, message)
        });
    }

    /// The connection, when nobody else has it. Keep forks out before.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Option<Database>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self, source: rusqlite::Error) -> Error {
        failed(&self.location.database, source)
    }

    pub(crate) fn session(&self) -> &Session {
        // Invariant: taken only by `drop`.
        self.session
            .get()
            .unwrap_or_else(|| unreachable!("a session lasts as long as its office"))
    }

    /// The database file.
    pub(crate) fn path(&self) -> &Path {
        &self.location.database
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn sessions(&self) -> &Path {
        &self.location.sessions
    }

    pub(crate) fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.mailbox.as_ref()
    }

    pub(crate) fn listener(&self) -> &Mutex<()> {
        &self.listener
    }

    /// Reads what other processes sent, until `receive` fails: there is no more.
    pub(crate) fn read_mail(
        &self,
        receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut datagram = [0; mail::LONGEST];
        loop {
            let len = receive(&mut datagram)?;
            for (attempt, item) in mail::read(&datagram[..len]) {
                self.hear(attempt, item);
            }
        }
    }

    pub(crate) fn config(&self) -> &SqliteConfig {
        &self.config
    }

    pub(crate) fn batch(&self) -> usize {
        self.config.batch.get() as usize
    }

    pub(crate) fn busy_limit(&self) -> Duration {
        self.config.busy_limit
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
        let _calm = undisturbed();
        self.log.close();
        let database = self.engine().take();
        let Some(session) = self.session.take() else {
            return;
        };
        if !self.attempts.is_empty() && !self.lost.load(Ordering::Acquire) {
            // What was leaked is held as long as the process lives.
            std::mem::forget(session);
            return;
        }
        if let Some(database) = database {
            database.be_patient(PATIENCE);
            // If it fails, the next process that begins a session clears up.
            if let Err(error) = sweep::resign(&database, session.id()) {
                tracing::debug!(%error, "a session stays in the database");
            }
        }
    }
}

/// Opens the database, and makes it if it is not there. Keep forks out before.
pub(crate) fn open_database(config: &SqliteConfig, location: &Location) -> Result<Database> {
    inherited::close();
    location.make_file()?;
    let sqlite = |source| failed(&location.database, source);
    let database = Database::open(&location.database).map_err(sqlite)?;
    let is_readonly = database.connection().is_readonly("main").map_err(sqlite)?;
    if is_readonly {
        let shown = location.database.display();
        let message = format!("{shown} is read-only for this process; choose another `path`");
        return Err(error(ErrorKind::PermissionDenied, message));
    }
    database.be_patient(config.busy_limit);
    let boot = &ProcessRecord::of_this_process().boot_id;
    schema::prepare(database.connection(), config, location, boot)?;
    Ok(database)
}

async fn receive(
    office: Weak<Office>,
    _in_child: InheritedDescriptor,
    socket: std::os::unix::net::UnixDatagram,
) {
    let Ok(socket) = tokio::net::UnixDatagram::from_std(socket) else {
        return;
    };
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let Some(office) = office.upgrade() else {
            return;
        };
        let _ = if office.listener.try_lock().is_ok() {
            office.read_mail(|datagram| socket.try_recv(datagram))
        } else {
            // Whoever listens reads what is there, also when it leaves.
            socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()))
        };
    }
}

/// The error for a backend that was closed.
pub(crate) fn closed() -> Error {
    Error::closed(NAME)
}
