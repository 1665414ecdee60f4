//! The server: a store behind connections that can fail in every way.

mod run;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{KeyReport, LockKey, OwnerToken, runtime};
use tokio::sync::{Notify, mpsc};

use super::faults::{Fate, Faults, Leg};
use super::plant::Plant;
use super::store::Store;
use super::wire::{Answer, Ask, ClientId, Kind, Push};

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// How long an offer waits for its claim. Default: 2 s.
    pub offer_life: Duration,
    /// How long a waiter stays queued that is not heard of. Default: 10 s.
    pub waiter_life: Duration,
    /// A defect to be caught. Default: none.
    pub plant: Option<Plant>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            offer_life: Duration::from_secs(2),
            waiter_life: Duration::from_secs(10),
            plant: None,
        }
    }
}

/// What a restart leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything: leases went on running.
    Data,
    /// Nothing.
    Nothing,
}

/// A store that clients reach by messages only. Clones are the same server.
///
/// Runs on the lock I/O thread. It does not survive a fork: a child has nobody to talk to.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    config: ServerConfig,
    /// The ticker has to look again.
    changed: Notify,
    /// The server answers again.
    resumed: Notify,
}

struct State {
    store: Store,
    faults: Faults,
    clients: u64,
    connections: u64,
    /// Where to push to: the connections that are open.
    open: HashMap<u64, (ClientId, mpsc::UnboundedSender<Down>)>,
    /// When connections were cut: what is sent over one afterwards goes nowhere.
    cut: HashMap<u64, Instant>,
    /// The connection of each client that said hello last; older ones are not heard.
    newest: HashMap<ClientId, u64>,
    /// Raised by a restart: connections of an earlier run are dead.
    run: u64,
    hangs: bool,
    partitioned: Vec<ClientId>,
    latency: (Duration, Duration),
    held: Vec<Parcel>,
    counts: HashMap<(ClientId, Kind), usize>,
}

/// A message on its way.
enum Parcel {
    Up { line: Line, id: u64, ask: Ask },
    Down { connection: u64, down: Down },
}

/// From server to client.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Answer { id: u64, answer: Answer },
    Push(Push),
}

/// Which connection it is.
#[derive(Clone, Copy, Debug)]
struct Line {
    client: ClientId,
    connection: u64,
    run: u64,
}

/// The client's end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    up: mpsc::UnboundedSender<(Instant, u64, Ask)>,
    down: mpsc::UnboundedReceiver<Down>,
}

impl Connection {
    pub(super) fn send(&self, id: u64, ask: Ask) {
        // A closed connection shows when it is read from.
        let _ = self.up.send((Instant::now(), id, ask));
    }

    /// The next message; `None` once the connection is closed.
    pub(super) async fn receive(&mut self) -> Option<Down> {
        self.down.recv().await
    }
}

impl Server {
    /// A server that keeps its word.
    #[must_use]
    pub fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    /// A server with other settings.
    #[must_use]
    pub fn with(config: ServerConfig) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                store: Store::new(config.offer_life, config.waiter_life, config.plant),
                faults: Faults::default(),
                clients: 0,
                connections: 0,
                open: HashMap::new(),
                cut: HashMap::new(),
                newest: HashMap::new(),
                run: 0,
                hangs: false,
                partitioned: Vec::new(),
                latency: (Duration::ZERO, Duration::ZERO),
                held: Vec::new(),
                counts: HashMap::new(),
            }),
            config,
            changed: Notify::new(),
            resumed: Notify::new(),
        });
        runtime::handle().spawn(run::tick(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Applies `fate` to the next `times` messages of this kind.
    pub fn next(&self, client: ClientId, leg: Leg, kind: Kind, fate: Fate, times: usize) {
        self.state()
            .faults
            .add(client, leg, kind, fate, Some(times));
    }

    /// Applies `fate` to every message of this kind until [`heal`](Self::heal).
    pub fn every(&self, client: ClientId, leg: Leg, kind: Kind, fate: Fate) {
        self.state().faults.add(client, leg, kind, fate, None);
    }

    /// How many messages are still to come for the rules of [`next`](Self::next).
    #[must_use]
    pub fn faults_outstanding(&self) -> usize {
        self.state().faults.outstanding()
    }

    /// How long every message takes: to the server, and back.
    pub fn set_latency(&self, request: Duration, reply: Duration) {
        self.state().latency = (request, reply);
    }

    /// Cuts a client off: messages vanish both ways, and nothing is closed.
    pub fn partition(&self, client: ClientId) {
        self.state().partitioned.push(client);
    }

    /// Stops answering: connections and messages are accepted and wait.
    pub fn hang(&self) {
        self.state().hangs = true;
    }

    /// Ends all faults: rules, partitions, latency and hanging. Messages that are held stay held.
    pub fn heal(&self) {
        {
            let mut state = self.state();
            state.faults.clear();
            state.partitioned.clear();
            state.latency = (Duration::ZERO, Duration::ZERO);
            state.hangs = false;
        }
        self.shared.resumed.notify_waiters();
        self.shared.changed.notify_one();
    }

    /// How many messages are held.
    #[must_use]
    pub fn held_messages(&self) -> usize {
        self.state().held.len()
    }

    /// Delivers what was held.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut self.state().held);
        for parcel in held {
            self.shared.deliver(parcel);
        }
    }

    /// Closes the connections of a client. It may come back.
    pub fn kill_connection(&self, client: ClientId) {
        self.state().cut(|of| of == client);
    }

    /// Closes the connections of all clients. They may come back.
    pub fn kill_connections(&self) {
        self.state().cut(|_| true);
    }

    /// Stops and starts the server: every connection is closed, and data is kept or gone.
    pub fn restart(&self, keep: Keep) {
        let mut state = self.state();
        state.run += 1;
        state.open.clear();
        state.newest.clear();
        state.cut.clear();
        state.held.clear();
        if keep == Keep::Nothing {
            state.store.wipe();
        }
    }

    /// Turns the server's wall clock, which fencing bases are made of, by so many seconds.
    pub fn turn_clock(&self, seconds: i64) {
        self.state().store.clock_turned += seconds * 1_000_000;
    }

    /// Lets a lease end now, as if nobody had renewed it. The holder is not told.
    pub fn expire(&self, attempt: OwnerToken) -> bool {
        let mut state = self.state();
        let found = state.store.expire(attempt);
        state.push_all(&self.shared);
        found
    }

    /// Takes the key away from its holders, or from one of them, and tells them.
    pub fn break_holder(&self, key: &LockKey, attempt: Option<OwnerToken>) -> usize {
        let mut state = self.state();
        let broken = state.store.break_holders(key, attempt);
        state.push_all(&self.shared);
        broken
    }

    /// When a lease ends at the server unless it is renewed.
    #[must_use]
    pub fn lease_end(&self, attempt: OwnerToken) -> Option<Instant> {
        let mut state = self.state();
        state.store.expire_due();
        state.push_all(&self.shared);
        state.store.lease_end(attempt)
    }

    /// Who holds and who waits, by the server itself.
    #[must_use]
    pub fn report(&self, key: &LockKey) -> KeyReport {
        let mut state = self.state();
        state.store.expire_due();
        let reports = state.store.reports();
        state.push_all(&self.shared);
        reports
            .into_iter()
            .find(|report| report.key == *key)
            .unwrap_or_else(|| KeyReport::idle(key.clone()))
    }

    /// Everything that is stored, a line for each holder and waiter.
    #[must_use]
    pub fn stored(&self) -> Vec<String> {
        let mut state = self.state();
        state.store.expire_due();
        state.push_all(&self.shared);
        state.store.stored()
    }

    /// How many requests of this kind have arrived from a client.
    #[must_use]
    pub fn arrived(&self, client: ClientId, kind: Kind) -> usize {
        let counts = &self.state().counts;
        counts.get(&(client, kind)).copied().unwrap_or_default()
    }

    pub(super) fn has(&self, plant: Plant) -> bool {
        self.shared.config.plant == Some(plant)
    }

    pub(super) fn new_client(&self) -> ClientId {
        let mut state = self.state();
        state.clients += 1;
        ClientId(state.clients)
    }

    /// Opens a connection, which is heard from its hello on.
    pub(super) fn connect(&self, client: ClientId) -> Connection {
        let (up, requests) = mpsc::unbounded_channel();
        let (replies, down) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.connections += 1;
        let connection = state.connections;
        let line = Line {
            client,
            connection,
            run: state.run,
        };
        state.open.insert(connection, (client, replies));
        drop(state);
        runtime::handle().spawn(run::serve(Arc::downgrade(&self.shared), line, requests));
        Connection { up, down }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
