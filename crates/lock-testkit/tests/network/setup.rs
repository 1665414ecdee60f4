//! A server, its clients, and waiting for something to become true.

use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Keepalive, LockBackend, LockKey};
use lock_testkit::network::{ClientId, NetworkBackend, NetworkConfig, Plant, Server, ServerConfig};

/// What a check says: nothing, or what is wrong.
pub(crate) type Verdict = Result<(), String>;

/// Says what is wrong unless `good`.
pub(crate) fn ensure(good: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if good { Ok(()) } else { Err(wrong()) }
}

/// Longer than anything that should happen takes, also on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(3);

/// Offers are short here, so that passing on is quick.
pub(crate) fn server(plant: Option<Plant>) -> Server {
    let mut config = ServerConfig::default();
    config.offer_life = Duration::from_millis(400);
    config.waiter_life = Duration::from_secs(5);
    config.plant = plant;
    Server::with(config)
}

/// One process that uses the server.
pub(crate) struct Client {
    pub(crate) network: NetworkBackend,
    pub(crate) backend: Arc<dyn LockBackend>,
}

impl Client {
    pub(crate) fn new(server: &Server) -> Self {
        let mut config = NetworkConfig::default();
        config.request_timeout = Duration::from_millis(200);
        config.ask_again = Duration::from_millis(150);
        Self::with(server, config)
    }

    pub(crate) fn with(server: &Server, config: NetworkConfig) -> Self {
        let network = NetworkBackend::with(server, config);
        let backend = Arc::new(Keepalive::new(Arc::new(network.clone())));
        Self { network, backend }
    }

    pub(crate) fn id(&self) -> ClientId {
        self.network.client()
    }
}

pub(crate) fn key(name: &str) -> LockKey {
    LockKey::new(name).expect("a plain name")
}

/// Waits until `true_now`, or says what did not come true.
pub(crate) async fn eventually(what: &str, true_now: impl Fn() -> bool) -> Verdict {
    let until = Instant::now() + SOON;
    while !true_now() {
        if until.has_passed() {
            return Err(format!("in {SOON:?} it did not come true that {what}"));
        }
        // sleep: between two looks
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Looks for a while whether `true_always`.
pub(crate) async fn steadily(
    what: &str,
    time: Duration,
    true_always: impl Fn() -> bool,
) -> Verdict {
    let until = Instant::now() + time;
    while !until.has_passed() {
        ensure(true_always(), || {
            format!("it did not stay true that {what}")
        })?;
        // sleep: between two looks
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// The outcome of a future that should be ready soon.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> Result<F::Output, String> {
    tokio::time::timeout(SOON, future)
        .await
        .map_err(|_| format!("no {what} in {SOON:?}"))
}

/// The guard of an acquire that should be granted soon.
pub(crate) async fn granted<F>(what: &str, acquire: F) -> Result<lock_core::LockGuard, String>
where
    F: Future<Output = lock_core::Result<lock_core::LockGuard>>,
{
    soon(what, acquire)
        .await?
        .map_err(|error| format!("{what}: {error}"))
}

/// That neither the server nor the client remembers anything, also a while later.
pub(crate) async fn nothing_left(server: &Server, clients: &[&Client]) -> Verdict {
    let debts = || {
        clients
            .iter()
            .map(|client| client.network.debts())
            .sum::<usize>()
    };
    let clean = || server.stored().is_empty() && debts() == 0;
    eventually("nothing is left", clean)
        .await
        .map_err(|wrong| format!("{wrong}: stored {:?}, debts {}", server.stored(), debts()))?;
    steadily("nothing is left", Duration::from_millis(100), clean).await
}

/// The output of a task, and its panic.
pub(crate) async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
