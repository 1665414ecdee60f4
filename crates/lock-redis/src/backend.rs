//! The backend: callers exchange messages with one driver, which owns the connections.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::{
    Capabilities, Change, DetachReach, Error, ErrorKind, FencingLife, Grant, InspectPage,
    InspectQuery, KeyReport, LeaseKind, LockBackend, LockKey, Ordering, OwnerToken, Released,
    Renewal, Renewed, Request, Result, Scope, Step, runtime,
};
use tokio::sync::{mpsc, oneshot};

use crate::config::RedisConfig;
use crate::driver::Driver;
use crate::error::{NAME, error};
use crate::names::Names;
use crate::party;
use crate::pledges::DebtCount;
use crate::topology::Nodes;

/// Locks on a Redis server. Put it under a [`Keepalive`](lock_core::Keepalive); clones are the same
/// client, which has one connection to each node, however many locks and waiters.
///
/// It connects on first use.
#[derive(Clone)]
pub struct RedisBackend {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<RedisConfig>,
    nodes: Nodes,
    debts: Arc<DebtCount>,
    line: ForkLocal<Line>,
}

/// The way to the driver, which starts with the first message.
struct Line {
    commands: mpsc::UnboundedSender<Command>,
    driver: Mutex<Option<Driver>>,
    /// Where this process hears of its turns.
    channel: String,
}

/// Who waits for an answer. One who has gone away changes nothing.
pub(crate) type Listener<T> = oneshot::Sender<Result<T>>;

/// An acquire, with all that can be worked out without the driver.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) key: LockKey,
    pub(crate) names: Names,
    pub(crate) request: Request,
    pub(crate) line: String,
    pub(crate) lease: Duration,
}

/// What callers tell the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Acquire(Box<Application>, Listener<Option<Grant>>),
    Release {
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
        listener: Listener<Released>,
    },
    Abandon {
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
    },
    Alter {
        key: LockKey,
        names: Names,
        grant: Grant,
        change: Change,
        listener: Listener<Grant>,
    },
    Renew {
        batch: Vec<Renewal>,
        listener: Listener<Vec<Renewed>>,
    },
    AcquireMany {
        wanted: Vec<Application>,
        listener: Listener<Option<Vec<Grant>>>,
    },
    Inspect {
        query: InspectQuery,
        listener: Listener<Vec<KeyReport>>,
    },
    Break {
        names: Names,
        attempt: Option<OwnerToken>,
        listener: Listener<usize>,
    },
    Close {
        listener: Listener<()>,
    },
}

impl RedisBackend {
    /// A client of the server that the configuration names. Nothing is sent before the first lock.
    ///
    /// # Errors
    /// `InvalidConfig` when a setting is missing, malformed, or contradicts another one.
    pub fn new(config: RedisConfig) -> Result<Self> {
        check(&config)?;
        let nodes = Nodes::new(&config)?;
        Ok(Self {
            shared: Arc::new(Shared {
                nodes,
                config: Arc::new(config),
                debts: Arc::default(),
                line: ForkLocal::new(),
            }),
        })
    }

    /// How many abandoned attempts the server has not confirmed yet.
    #[must_use]
    pub fn debts(&self) -> usize {
        self.shared.debts.get()
    }

    /// A step that gives the driver a command when it is first polled.
    fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&Shared, &Line, Listener<T>) -> Command + Send + 'static,
    ) -> Step<Result<T>> {
        let shared = Arc::clone(&self.shared);
        Step::wait(async move {
            let (listener, answer) = oneshot::channel();
            let line = shared.line();
            line.send(command(&shared, line, listener));
            answer.await.unwrap_or_else(|_| Err(Error::closed(NAME)))
        })
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.shared.config.prefix, key)
    }

    fn check_lease(lease: Option<Duration>) -> Result<()> {
        match lease {
            Some(lease) => check_lease(lease).map_err(|what| Error::unsupported(NAME, what)),
            None => Ok(()),
        }
    }
}

fn check(config: &RedisConfig) -> Result<()> {
    let invalid = |message: String| Err(error(ErrorKind::InvalidConfig, message));
    if config.urls().iter().all(|url| url.is_empty()) {
        return invalid("`url` is not set; write `url = \"redis://host:port\"`".to_owned());
    }
    if let Err(what) = check_lease(config.lease) {
        return invalid(format!("`lease`: {what}"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    if config.prefix.is_empty() || !config.prefix.chars().all(allowed) {
        return invalid(format!(
            "`prefix` is `{}`; write letters, digits and `._-:/` only",
            config.prefix.escape_debug()
        ));
    }
    for (name, value) in [
        ("retry_delay", config.retry_delay),
        ("connect_timeout", config.connect_timeout),
        ("response_timeout", config.response_timeout),
    ] {
        if value < Duration::from_millis(1) {
            return invalid(format!("`{name}` is {value:?}; write at least 1ms"));
        }
    }
    Ok(())
}

fn check_lease(lease: Duration) -> Result<(), String> {
    let (least, most) = (RedisConfig::MIN_LEASE, RedisConfig::MAX_LEASE);
    if (least..=most).contains(&lease) {
        return Ok(());
    }
    Err(format!(
        "a lease of {lease:?}; ask for {least:?} to {most:?}"
    ))
}

impl Shared {
    fn line(&self) -> &Line {
        let line = self.line.get_or_init(|| {
            let (commands, receiver) = mpsc::unbounded_channel();
            // Random, so that no other process listens there, and new after a fork. Marked where news
            // are broadcast to all nodes: who sends cannot know then whether they were heard.
            let kind = if self.nodes.is_cluster() { 'b' } else { 'c' };
            let channel = format!("{}:{kind}:{}", self.config.prefix, OwnerToken::mint());
            let driver = Driver::new(
                Arc::clone(&self.config),
                self.nodes.clone(),
                channel.clone(),
                receiver,
                Arc::clone(&self.debts),
            );
            Line {
                commands,
                driver: Mutex::new(Some(driver)),
                channel,
            }
        });
        // Here and not in `init`, which may run twice: only one driver may subscribe.
        let driver = line
            .driver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(driver) = driver {
            runtime::handle().spawn(driver.run());
        }
        line
    }

    fn application(&self, line: &Line, key: LockKey, request: Request) -> Application {
        let lease = request.ttl.unwrap_or(self.config.lease);
        Application {
            names: Names::new(&self.config.prefix, &key),
            line: party::line(&key, &request, lease, &line.channel),
            lease,
            key,
            request,
        }
    }
}

impl Line {
    fn send(&self, command: Command) {
        // The driver outlives every sender. Were it gone, its listeners would hear `Closed`.
        let _ = self.commands.send(command);
    }
}

#[async_trait]
impl LockBackend for RedisBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Network, LeaseKind::PerGrant);
        capabilities.ordering = Ordering::Global;
        capabilities.fencing = FencingLife::ServerClock;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        // Keys of a cluster lie on several nodes.
        capabilities.acquire_many = !self.shared.nodes.is_cluster();
        capabilities.break_lock = true;
        capabilities.lock_delay = true;
        capabilities.detach = DetachReach::Anywhere;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = Self::check_lease(request.ttl) {
            return Step::Ready(Err(error));
        }
        let (key, request) = (key.clone(), request.clone());
        self.call(|shared, line, listener| {
            let application = shared.application(line, key, request);
            Command::Acquire(Box::new(application), listener)
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let (key, names, attempt) = (key.clone(), self.names(key), grant.attempt);
        self.call(move |_, _, listener| Command::Release {
            key,
            names,
            attempt,
            listener,
        })
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        // A process that never used its line has nothing to abandon; a forked child must not.
        if let Some(line) = self.shared.line.get() {
            self.shared.debts.abandoned();
            line.send(Command::Abandon {
                key: key.clone(),
                names: self.names(key),
                attempt,
            });
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (key, names, grant) = (key.clone(), self.names(key), grant.clone());
        self.call(move |_, _, listener| Command::Alter {
            key,
            names,
            grant,
            change,
            listener,
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        let batch = batch.to_vec();
        self.call(|_, _, listener| Command::Renew { batch, listener })
            .finish()
            .await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        if self.shared.nodes.is_cluster() {
            return Step::Ready(Err(Error::unsupported(
                NAME,
                "several keys in one step on a cluster",
            )));
        }
        for (_, request) in wanted {
            if let Err(error) = Self::check_lease(request.ttl) {
                return Step::Ready(Err(error));
            }
        }
        let wanted = wanted.to_vec();
        self.call(|shared, line, listener| {
            let applications = wanted.into_iter();
            let applications =
                applications.map(|(key, request)| shared.application(line, key, request));
            Command::AcquireMany {
                wanted: applications.collect(),
                listener,
            }
        })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        let asked = query.clone();
        let reports = self
            .call(|_, _, listener| Command::Inspect {
                query: asked,
                listener,
            })
            .finish()
            .await?;
        Ok(query.page_of(reports))
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        let names = self.names(key);
        self.call(move |_, _, listener| Command::Break {
            names,
            attempt,
            listener,
        })
        .finish()
        .await
    }

    async fn close(&self) -> Result<()> {
        self.call(|_, _, listener| Command::Close { listener })
            .finish()
            .await
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("config", &self.shared.config)
            .field("debts", &self.debts())
            .finish_non_exhaustive()
    }
}
