//! The driver: one task on the lock I/O thread that owns a client's connection and its attempts.

mod answers;
mod time;

use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Error, ErrorKind, Grant, LockKey, OwnerToken, PartyRecord, ProcessRecord, Request, Wait,
};
use tokio::sync::mpsc;

use super::backend::{Command, Listener, NAME, NetworkConfig};
use super::calls::{Calls, Purpose};
use super::plant::Plant;
use super::pledges::{DebtCount, Pending, Pledges};
use super::server::{Connection, Down, Server};
use super::wire::{Application, Ask, ClientId};

/// How often timers are looked at while something is under way.
const TICK: Duration = Duration::from_millis(10);
/// How long a late answer is still heeded.
const HEED: Duration = Duration::from_secs(10);

pub(super) struct Driver {
    server: Server,
    client: ClientId,
    config: NetworkConfig,
    commands: mpsc::UnboundedReceiver<Command>,
    link: Link,
    heard: Instant,
    calls: Calls,
    pledges: Pledges,
    debts: Arc<DebtCount>,
    process: ProcessRecord,
    closed: bool,
    /// Who waits for the debts to be paid, until when.
    closing: Vec<(Instant, Listener<()>)>,
    /// What [`Plant::AbandonedAskedAgain`] asks for again.
    undead: Vec<(LockKey, Request)>,
}

enum Link {
    Down,
    /// Hello is sent; give the connection up at that time.
    Greeting(Connection, Instant),
    Up(Connection),
}

impl Driver {
    pub(super) fn new(
        server: Server,
        client: ClientId,
        config: NetworkConfig,
        commands: mpsc::UnboundedReceiver<Command>,
        debts: Arc<DebtCount>,
    ) -> Self {
        Self {
            server,
            client,
            config,
            commands,
            link: Link::Down,
            heard: Instant::now(),
            calls: Calls::default(),
            pledges: Pledges::counted_in(Arc::clone(&debts)),
            debts,
            process: ProcessRecord::current(),
            closed: false,
            closing: Vec::new(),
            undead: Vec::new(),
        }
    }

    /// Ends when every handle is gone and every debt is paid.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut orphaned = false;
        while !orphaned || self.pledges.has_debts() {
            if matches!(self.link, Link::Down) {
                self.connect();
            }
            let busy = self.is_busy();
            tokio::select! {
                command = self.commands.recv(), if !orphaned => match command {
                    Some(command) => self.obey(command),
                    None => orphaned = true,
                },
                message = self.link.receive() => match message {
                    Some(message) => self.hear(message),
                    None => self.disconnect(),
                },
                _ = ticks.tick(), if busy => self.look_at_time(),
            }
        }
    }

    fn is_busy(&self) -> bool {
        !self.calls.is_empty()
            || !self.pledges.pending.is_empty()
            || self.pledges.has_debts()
            || !self.closing.is_empty()
            || !matches!(self.link, Link::Up(_))
    }

    fn connect(&mut self) {
        let connection = self.server.connect(self.client);
        connection.send(0, Ask::Hello);
        self.link = Link::Greeting(connection, Instant::now() + self.config.request_timeout * 3);
    }

    /// The connection is greeted: everything that may have been missed is asked for again.
    fn connected(&mut self) {
        let Link::Greeting(connection, _) = std::mem::replace(&mut self.link, Link::Down) else {
            return;
        };
        self.link = Link::Up(connection);
        for call in self.calls.drain() {
            self.call_since(call.since, call.purpose);
        }
        for pending in self.pledges.pending.values_mut() {
            pending.ask_at = Instant::now();
        }
        self.pledges.press_debts();
        self.revalidate_holders();
        self.look_at_time();
        for (key, request) in std::mem::take(&mut self.undead) {
            self.ask(&key, &request, self.config.ttl);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Acquire {
                key,
                request,
                listener,
            } => self.acquire(key, request, listener),
            Command::Abandon { key, attempt } => {
                self.abandon(key, attempt);
                self.debts.heard();
            }
            Command::Release {
                key,
                attempt,
                listener,
            } => {
                self.pledges.held.remove(&attempt);
                self.call(Purpose::Release {
                    key,
                    attempt,
                    again: false,
                    listener,
                });
            }
            Command::Alter {
                key,
                grant,
                change,
                listener,
            } => self.call(Purpose::Alter {
                key,
                grant,
                change,
                listener,
            }),
            Command::Renew { batch, listener } => self.call(Purpose::Renew {
                batch,
                listener: Some(listener),
            }),
            Command::AcquireMany { listener, .. } if self.closed => {
                let _ = listener.send(Err(Error::closed(NAME)));
            }
            Command::AcquireMany { wanted, listener } => {
                self.call(Purpose::AcquireMany { wanted, listener });
            }
            Command::Inspect { query, listener } => {
                self.call(Purpose::Inspect { query, listener });
            }
            Command::Break {
                key,
                attempt,
                listener,
            } => self.call(Purpose::Break {
                key,
                attempt,
                listener,
            }),
            Command::Close { listener } => self.close(listener),
        }
    }

    fn acquire(&mut self, key: LockKey, request: Request, listener: Listener<Option<Grant>>) {
        let attempt = request.attempt;
        if let Some(held) = self.pledges.held.get(&attempt) {
            let _ = listener.send(Ok(Some(held.grant.clone())));
            return;
        }
        if let Some(pending) = self.pledges.pending.get_mut(&attempt) {
            pending.listener = listener;
            return;
        }
        if self.closed {
            let _ = listener.send(Err(Error::closed(NAME)));
            return;
        }
        if self.pledges.has_ended(attempt) {
            let ended = Error::new(ErrorKind::Closed, "this attempt is over; start a new one");
            let _ = listener.send(Err(ended.with_backend(NAME)));
            return;
        }
        let must_not_wait = request.wait == Wait::Now;
        let pending = Pending {
            ttl: request.ttl.unwrap_or(self.config.ttl),
            key,
            listener,
            sent: false,
            ask_at: Instant::now(),
            give_up: must_not_wait.then(|| Instant::now() + self.config.patience),
            heed_from: 0,
            request,
        };
        self.pledges.pending.insert(attempt, pending);
        self.ask_pending(attempt);
    }

    /// Sends the acquire of a pending attempt, for the first time or again.
    fn ask_pending(&mut self, attempt: OwnerToken) {
        if !matches!(self.link, Link::Up(_)) {
            return;
        }
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            return;
        };
        pending.sent = true;
        pending.ask_at = Instant::now() + self.config.request_timeout;
        let (key, request, ttl) = (pending.key.clone(), pending.request.clone(), pending.ttl);
        self.ask(&key, &request, ttl);
    }

    fn ask(&mut self, key: &LockKey, request: &Request, ttl: Duration) {
        let ask = Ask::Acquire {
            key: key.clone(),
            application: Box::new(self.application(request, ttl)),
            may_queue: request.wait != Wait::Now,
        };
        let purpose = Purpose::Attempt(key.clone(), request.attempt);
        self.send(purpose, ask, HEED);
    }

    fn application(&self, request: &Request, ttl: Duration) -> Application {
        let mut record = PartyRecord::new(request.attempt, request.mode, self.process.clone());
        record.priority = request.priority;
        record.owner = request.owner;
        record.label = request.label.as_deref().map(str::to_owned);
        record.record = request.record.as_deref().map(<[u8]>::to_vec);
        record.since = Some(std::time::SystemTime::now());
        Application {
            record,
            ttl,
            lock_delay: request.lock_delay,
        }
    }

    fn abandon(&mut self, key: LockKey, attempt: OwnerToken) {
        if self.server.has(Plant::AbandonedAskedAgain)
            && let Some(pending) = self.pledges.pending.get(&attempt)
        {
            self.undead.push((key.clone(), pending.request.clone()));
        }
        self.pledges.abandon(key, attempt);
        if self.server.has(Plant::CancelLostOnDrop) {
            self.pledges.paid(attempt);
        }
        self.pay_debts();
    }

    /// Whether one of the attempts of a set is over for this client.
    fn any_ended(&self, wanted: &[(LockKey, Request)]) -> bool {
        let mut attempts = wanted.iter().map(|(_, request)| request.attempt);
        attempts.any(|attempt| self.pledges.has_ended(attempt))
    }

    fn pay_debts(&mut self) {
        if !matches!(self.link, Link::Up(_)) {
            return;
        }
        for (key, attempt) in self.pledges.debts_due(self.config.request_timeout) {
            let ask = Ask::Cancel { key, attempt };
            self.send(Purpose::Cancel(attempt), ask, HEED);
            if self.server.has(Plant::CancelSentOnce) {
                self.pledges.paid(attempt);
            }
        }
    }

    fn close(&mut self, listener: Listener<()>) {
        self.closed = true;
        let pending: Vec<_> = self
            .pledges
            .pending
            .iter()
            .map(|(attempt, pending)| (*attempt, pending.key.clone()))
            .collect();
        for (attempt, key) in pending {
            self.refuse(key, attempt, Error::closed(NAME));
        }
        self.pay_debts();
        let until = Instant::now() + self.config.patience;
        self.closing.push((until, listener));
        self.look_at_time();
    }

    /// Answers a pending attempt with an error and ends it.
    fn refuse(&mut self, key: LockKey, attempt: OwnerToken, error: Error) {
        let pending = self.pledges.pending.get_mut(&attempt);
        let sent = pending.as_ref().is_some_and(|pending| pending.sent);
        if sent {
            // The listener is needed after the attempt has become a debt.
            let (unheard, _) = tokio::sync::oneshot::channel();
            let listener = pending.map(|pending| std::mem::replace(&mut pending.listener, unheard));
            self.pledges.abandon(key, attempt);
            if let Some(listener) = listener {
                let _ = listener.send(Err(error));
            }
        } else if let Some(pending) = self.pledges.pending.remove(&attempt) {
            let _ = pending.listener.send(Err(error));
        }
    }

    fn call(&mut self, purpose: Purpose) {
        self.call_since(Instant::now(), purpose);
    }

    /// Sends a request, or keeps it until there is a connection. It was first asked for at `since`.
    fn call_since(&mut self, since: Instant, purpose: Purpose) {
        let (ask, wait) = match &purpose {
            Purpose::Attempt(..) | Purpose::Cancel(_) => return,
            Purpose::Renew { batch, .. } => {
                let shortest = batch.iter().map(|renewal| renewal.ttl).min();
                let wait = shortest.unwrap_or(self.config.ttl) / 6;
                let leases = batch
                    .iter()
                    .map(|renewal| (renewal.key.clone(), renewal.lease, renewal.ttl))
                    .collect();
                (Ask::Renew(leases), wait.min(self.config.request_timeout))
            }
            Purpose::Release { key, attempt, .. } => {
                let (key, attempt) = (key.clone(), *attempt);
                (Ask::Release { key, attempt }, self.config.request_timeout)
            }
            Purpose::Alter {
                key, grant, change, ..
            } => {
                let (key, attempt, change) = (key.clone(), grant.attempt, *change);
                let ask = Ask::Alter {
                    key,
                    attempt,
                    change,
                };
                (ask, self.config.request_timeout)
            }
            Purpose::AcquireMany { wanted, .. } => {
                let wanted = wanted.iter().map(|(key, request)| {
                    let ttl = request.ttl.unwrap_or(self.config.ttl);
                    (key.clone(), self.application(request, ttl))
                });
                (
                    Ask::AcquireMany(wanted.collect()),
                    self.config.request_timeout,
                )
            }
            Purpose::Inspect { query, .. } => {
                (Ask::Inspect(query.clone()), self.config.request_timeout)
            }
            Purpose::Break { key, attempt, .. } => {
                let (key, attempt) = (key.clone(), *attempt);
                (Ask::Break { key, attempt }, self.config.request_timeout)
            }
        };
        self.send_since(since, purpose, ask, wait);
    }

    fn send(&mut self, purpose: Purpose, ask: Ask, wait: Duration) {
        self.send_since(Instant::now(), purpose, ask, wait);
    }

    fn send_since(&mut self, since: Instant, purpose: Purpose, ask: Ask, wait: Duration) {
        match &self.link {
            Link::Up(connection) => {
                let number = self.calls.add(since, purpose, Some(Instant::now()), wait);
                connection.send(number, ask);
            }
            Link::Down | Link::Greeting(..) => {
                self.calls.add(since, purpose, None, wait);
            }
        }
    }
}

impl Link {
    async fn receive(&mut self) -> Option<Down> {
        match self {
            Self::Down => std::future::pending().await,
            Self::Greeting(connection, _) | Self::Up(connection) => connection.receive().await,
        }
    }
}
