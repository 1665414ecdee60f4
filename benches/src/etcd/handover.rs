//! Waiters that pass one key around, each a client of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lock_benches::{Bar, Round, Rounds, Samples, Session};
use lock_testkit::services::etcd::EtcdCluster;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::peer::Peer;
use super::{Bench, ours};

/// Long enough for 10,000 grants over nine rounds.
const WINDOW: Duration = Duration::from_millis(2500);
/// A watch that is not in step with the server is served once in 100 ms.
const PLATEAU: std::ops::Range<Duration> = Duration::from_millis(70)..Duration::from_millis(130);

impl Bench {
    pub(crate) fn handover(&self, session: &mut Session) -> Result<()> {
        for (cluster, nodes) in [(&self.one, "one node"), (&self.three, "three nodes")] {
            for waiters in [2, 16] {
                let name = format!("handover, {waiters} waiters, {nodes}");
                let totals = RefCell::new(vec![0; waiters]);
                let measure = |round: &mut Round| {
                    let ours = run(&self.runtime, our_clients(cluster, waiters)?)?;
                    let peers = self.runtime.block_on(recipe_clients(cluster, waiters))?;
                    let peers = run(&self.runtime, peers)?;
                    for (total, grants) in totals.borrow_mut().iter_mut().zip(&ours.grants) {
                        *total += grants;
                    }
                    ours.record("ours", round);
                    peers.record("recipe", round);
                    Ok(())
                };
                let Some(rounds) = session.section(&name, measure)? else {
                    continue;
                };
                judge(session, &rounds, &name, &totals.into_inner());
            }
        }
        Ok(())
    }
}

fn judge(session: &mut Session, rounds: &Rounds, name: &str, totals: &[u64]) {
    let ratio = |round: &Round| round.get("ours, 1/s") / round.get("recipe, 1/s");
    session.judge(
        rounds,
        &Bar::at_least(format!("{name}: ours / recipe, per second"), 2.0),
        ratio,
    );
    let limit = 15.0 * rounds.median("ours, p50, us");
    let bar = Bar::tail_at_most(format!("{name}: p99, us, at most 15 p50"), limit);
    session.judge(rounds, &bar, |round| round.get("ours, p99, us"));
    let bar = Bar::at_most(format!("{name}: share on the 100 ms plateau"), 0.002);
    session.judge(rounds, &bar, |round| round.get("ours, on the plateau"));
    let (most, least) = (totals.iter().max(), totals.iter().min());
    let spread = most.copied().unwrap_or(0) as f64 / least.copied().unwrap_or(0) as f64;
    let grants: u64 = totals.iter().sum();
    let bar = Bar::at_most(format!("{name}: max/min of {grants} grants"), 1.05);
    session.judge(rounds, &bar, |_| spread);
}

/// What a waiter does, whoever's lock it is.
trait Client: 'static {
    /// What proves that the lock is held.
    type Held;

    async fn acquire(&mut self) -> Result<Self::Held>;

    async fn release(&mut self, held: Self::Held) -> Result<()>;

    /// Ends its session.
    async fn close(self) -> Result<()>;
}

struct Ours(lock_core::Lock);

impl Client for Ours {
    type Held = lock_core::LockGuard;

    async fn acquire(&mut self) -> Result<Self::Held> {
        Ok(self.0.acquire().await?)
    }

    async fn release(&mut self, held: Self::Held) -> Result<()> {
        held.release().await?;
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.backend().close().await?)
    }
}

struct Recipe {
    peer: Peer,
    lease: i64,
    prefix: String,
}

impl Client for Recipe {
    type Held = Vec<u8>;

    async fn acquire(&mut self) -> Result<Self::Held> {
        self.peer.recipe_acquire(&self.prefix, self.lease).await
    }

    async fn release(&mut self, held: Self::Held) -> Result<()> {
        self.peer.recipe_release(held).await
    }

    async fn close(mut self) -> Result<()> {
        self.peer.revoke(self.lease).await
    }
}

fn our_clients(cluster: &EtcdCluster, waiters: usize) -> Result<Vec<Ours>> {
    let client = |_| {
        let backend = ours::open(&cluster.endpoints())?;
        Ok(Ours(ours::lock(&backend, &format!("handover-{waiters}"))?))
    };
    (0..waiters).map(client).collect()
}

async fn recipe_clients(cluster: &EtcdCluster, waiters: usize) -> Result<Vec<Recipe>> {
    let endpoints = cluster.endpoints();
    let mut clients = Vec::new();
    for number in 0..waiters {
        let mut peer = Peer::connect(&endpoints[number % endpoints.len()]).await?;
        let lease = peer.lease().await?;
        let prefix = format!("recipe-{waiters}");
        clients.push(Recipe {
            peer,
            lease,
            prefix,
        });
    }
    Ok(clients)
}

#[derive(Default)]
struct Run {
    grants: Vec<u64>,
    handovers: Samples,
    on_the_plateau: u64,
    elapsed: Duration,
}

impl Run {
    fn record(&self, who: &str, round: &mut Round) {
        let grants: u64 = self.grants.iter().sum();
        round.record(
            format!("{who}, 1/s"),
            grants as f64 / self.elapsed.as_secs_f64(),
        );
        for percent in [50, 90, 99] {
            let figure = self.handovers.percentile(f64::from(percent));
            round.record(format!("{who}, p{percent}, us"), figure);
        }
        let share = self.on_the_plateau as f64 / self.handovers.len() as f64;
        round.record(format!("{who}, on the plateau"), share);
    }
}

/// What the clients share while they run.
#[derive(Default)]
struct Shared {
    /// When the last holder began to release; `None` while it is held.
    released: Cell<Option<Instant>>,
    handovers: RefCell<Vec<Duration>>,
}

/// Lets all clients acquire and release in turn, and notes from release to the next grant.
fn run<C: Client>(runtime: &Runtime, clients: Vec<C>) -> Result<Run> {
    let shared = Rc::new(Shared::default());
    let local = LocalSet::new();
    let (start, mut grants) = (Instant::now(), Vec::new());
    local.block_on(runtime, async {
        let turns = clients
            .into_iter()
            .map(|client| take_turns(client, Rc::clone(&shared), start));
        let turns: Vec<_> = turns.map(tokio::task::spawn_local).collect();
        for turn in turns {
            grants.push(turn.await??);
        }
        anyhow::Ok(())
    })?;
    let handovers = shared.handovers.take();
    let on_the_plateau = handovers
        .iter()
        .filter(|time| PLATEAU.contains(*time))
        .count();
    Ok(Run {
        grants,
        handovers: handovers.into_iter().collect(),
        on_the_plateau: on_the_plateau as u64,
        elapsed: start.elapsed(),
    })
}

#[expect(
    clippy::future_not_send,
    reason = "all clients share one thread, so that counting costs nothing"
)]
async fn take_turns<C: Client>(mut client: C, shared: Rc<Shared>, start: Instant) -> Result<u64> {
    let mut grants = 0;
    while start.elapsed() < WINDOW {
        let held = client.acquire().await?;
        let released = shared.released.take();
        ensure!(
            released.is_some() || shared.handovers.borrow().is_empty(),
            "two hold it"
        );
        if let Some(released) = released {
            shared.handovers.borrow_mut().push(released.elapsed());
        }
        grants += 1;
        shared.released.set(Some(Instant::now()));
        client.release(held).await?;
    }
    client.close().await?;
    Ok(grants)
}
