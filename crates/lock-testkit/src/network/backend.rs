//! The backend: callers exchange messages with one driver, which owns the connection.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::{
    Capabilities, Change, DetachReach, Error, FencingLife, Grant, InspectPage, InspectQuery,
    KeyReport, LeaseKind, LockBackend, LockKey, Ordering, OwnerToken, Released, Renewal, Renewed,
    Request, Result, Scope, Step, runtime,
};
use tokio::sync::{mpsc, oneshot};

use super::driver::Driver;
use super::pledges::DebtCount;
use super::server::Server;
use super::wire::ClientId;

pub(super) const NAME: &str = "network";

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// The life of a lease where the request names none. Default: 30 s.
    pub ttl: Duration,
    /// After how long a request is taken for unanswered. Default: 500 ms.
    pub request_timeout: Duration,
    /// How often a waiter asks again in case its push was lost. Default: 1 s.
    pub ask_again: Duration,
    /// How long an acquire that must not wait tries to reach the server. Default: 3 s.
    pub patience: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            request_timeout: Duration::from_millis(500),
            ask_again: Duration::from_secs(1),
            patience: Duration::from_secs(3),
        }
    }
}

impl NetworkConfig {
    /// The shortest lease: below it a stall of the machine would be a loss.
    pub const MIN_TTL: Duration = Duration::from_millis(100);
    /// The longest lease.
    pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
}

/// Locks on a [`Server`], through one connection. Put it under a
/// [`Keepalive`](lock_core::Keepalive); clones are the same client.
#[derive(Clone)]
pub struct NetworkBackend {
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    config: NetworkConfig,
    client: ClientId,
    debts: Arc<DebtCount>,
    line: ForkLocal<Line>,
}

/// The way to the driver, which starts with the first message.
struct Line {
    commands: mpsc::UnboundedSender<Command>,
    driver: Mutex<Option<Driver>>,
}

/// Who waits for an answer. One who has gone away changes nothing.
pub(super) type Listener<T> = oneshot::Sender<Result<T>>;

/// What callers tell the driver.
pub(super) enum Command {
    Acquire {
        key: LockKey,
        request: Request,
        listener: Listener<Option<Grant>>,
    },
    Release {
        key: LockKey,
        attempt: OwnerToken,
        listener: Listener<Released>,
    },
    Abandon {
        key: LockKey,
        attempt: OwnerToken,
    },
    Alter {
        key: LockKey,
        grant: Grant,
        change: Change,
        listener: Listener<Grant>,
    },
    Renew {
        batch: Vec<Renewal>,
        listener: Listener<Vec<Renewed>>,
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
    Close {
        listener: Listener<()>,
    },
}

impl NetworkBackend {
    /// A new client of `server`. It connects on first use.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        Self::with(server, NetworkConfig::default())
    }

    /// The same, with other settings.
    #[must_use]
    pub fn with(server: &Server, config: NetworkConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                server: server.clone(),
                config,
                client: server.new_client(),
                debts: Arc::default(),
                line: ForkLocal::new(),
            }),
        }
    }

    /// Which client this is to the server, for faults.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.shared.client
    }

    /// How many abandoned attempts the server has not confirmed yet.
    #[must_use]
    pub fn debts(&self) -> usize {
        self.shared.debts.get()
    }

    /// A step that gives the driver a command when it is first polled.
    fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(Listener<T>) -> Command + Send + 'static,
    ) -> Step<Result<T>> {
        let shared = Arc::clone(&self.shared);
        Step::wait(async move {
            let (listener, answer) = oneshot::channel();
            shared.line().send(command(listener));
            answer.await.unwrap_or_else(|_| Err(Error::closed(NAME)))
        })
    }

    fn check_ttl(ttl: Option<Duration>) -> Result<()> {
        match ttl {
            Some(ttl) if !(NetworkConfig::MIN_TTL..=NetworkConfig::MAX_TTL).contains(&ttl) => {
                Err(Error::unsupported(
                    NAME,
                    format_args!(
                        "a TTL of {ttl:?}; ask for {:?} to {:?}",
                        NetworkConfig::MIN_TTL,
                        NetworkConfig::MAX_TTL
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Shared {
    fn line(&self) -> &Line {
        let line = self.line.get_or_init(|| {
            let (commands, receiver) = mpsc::unbounded_channel();
            let debts = Arc::clone(&self.debts);
            let server = self.server.clone();
            let driver = Driver::new(server, self.client, self.config, receiver, debts);
            Line {
                commands,
                driver: Mutex::new(Some(driver)),
            }
        });
        // Here and not in `init`, which may run twice: only one driver may say hello.
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
}

impl Line {
    fn send(&self, command: Command) {
        // The driver outlives every sender. Were it gone, its listeners would hear `Closed`.
        let _ = self.commands.send(command);
    }
}

#[async_trait]
impl LockBackend for NetworkBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Network, LeaseKind::PerGrant);
        capabilities.ordering = Ordering::Global;
        capabilities.fencing = FencingLife::ServerClock;
        capabilities.shared = true;
        capabilities.permits = true;
        capabilities.downgrade = true;
        capabilities.acquire_many = true;
        capabilities.break_lock = true;
        capabilities.lock_delay = true;
        capabilities.detach = DetachReach::Anywhere;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = Self::check_ttl(request.ttl) {
            return Step::Ready(Err(error));
        }
        let (key, request) = (key.clone(), request.clone());
        self.call(|listener| Command::Acquire {
            key,
            request,
            listener,
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        let (key, attempt) = (key.clone(), grant.attempt);
        self.call(move |listener| Command::Release {
            key,
            attempt,
            listener,
        })
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        // A process that never used its line has nothing to abandon; a forked child must not.
        if let Some(line) = self.shared.line.get() {
            let key = key.clone();
            self.shared.debts.abandoned();
            line.send(Command::Abandon { key, attempt });
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (key, grant) = (key.clone(), grant.clone());
        self.call(move |listener| Command::Alter {
            key,
            grant,
            change,
            listener,
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        let batch = batch.to_vec();
        self.call(|listener| Command::Renew { batch, listener })
            .finish()
            .await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        for (_, request) in wanted {
            if let Err(error) = Self::check_ttl(request.ttl) {
                return Step::Ready(Err(error));
            }
        }
        let wanted = wanted.to_vec();
        self.call(|listener| Command::AcquireMany { wanted, listener })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        let asked = query.clone();
        let reports = self
            .call(|listener| Command::Inspect {
                query: asked,
                listener,
            })
            .finish()
            .await?;
        Ok(query.page_of(reports))
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        let key = key.clone();
        self.call(move |listener| Command::Break {
            key,
            attempt,
            listener,
        })
        .finish()
        .await
    }

    async fn close(&self) -> Result<()> {
        self.call(|listener| Command::Close { listener })
            .finish()
            .await
    }
}

impl fmt::Debug for NetworkBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkBackend")
            .field("client", &self.shared.client)
            .field("debts", &self.debts())
            .finish_non_exhaustive()
    }
}
