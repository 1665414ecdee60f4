//! How messages get through the server, and what may happen to them on the way.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::runtime;
use tokio::sync::mpsc;

use super::{Down, Line, Parcel, Shared, State};
use crate::network::faults::{Fate, Leg};
use crate::network::plant::Plant;
use crate::network::wire::{Ask, ClientId, Kind};

/// Reads one connection until its client closes it.
pub(super) async fn serve(
    shared: Weak<Shared>,
    line: Line,
    mut requests: mpsc::UnboundedReceiver<(Instant, u64, Ask)>,
) {
    while let Some((sent, id, ask)) = requests.recv().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.state().was_cut(line.connection, sent) {
            continue;
        }
        let latency = shared.state().latency.0;
        let arrival = sent + latency;
        if !latency.is_zero() {
            // sleep: the latency of the line
            tokio::time::sleep(arrival.remaining()).await;
        }
        shared.answers().await;
        shared.route(
            line.client,
            Leg::Request,
            ask.kind(),
            Parcel::Up { line, id, ask },
        );
    }
    if let Some(shared) = shared.upgrade() {
        let mut state = shared.state();
        state.open.remove(&line.connection);
        state.cut.remove(&line.connection);
    }
}

/// Lets leases and offers end on time.
pub(super) async fn tick(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.answers().await;
        let next = {
            let mut state = shared.state();
            let next = state.store.expire_due();
            state.push_all(&shared);
            next
        };
        // A look now and then, so that a server that was dropped does not stay for its ticker.
        let pause = next.map_or(MOST, |next| next.remaining().min(MOST));
        let _ = tokio::time::timeout(pause, shared.changed.notified()).await;
    }
}

const MOST: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the server hangs.
    async fn answers(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.state().hangs {
                return;
            }
            resumed.await;
        }
    }

    /// Takes a message on its way, through what stands in it.
    fn route(self: &Arc<Self>, client: ClientId, leg: Leg, kind: Kind, parcel: Parcel) {
        let fate = {
            let mut state = self.state();
            if state.partitioned.contains(&client) {
                return;
            }
            let fate = state.faults.fate(client, leg, kind);
            if fate == Some(Fate::Held) {
                state.held.push(parcel);
                return;
            }
            fate
        };
        match fate {
            None | Some(Fate::Held) => self.deliver(parcel),
            Some(Fate::Lost) => {}
            Some(Fate::Late(by)) => self.deliver_after(by, parcel),
            Some(Fate::Doubled) => {
                self.deliver(parcel.copy());
                self.deliver(parcel);
            }
        }
    }

    fn deliver_after(self: &Arc<Self>, pause: Duration, parcel: Parcel) {
        let shared = Arc::downgrade(self);
        runtime::handle().spawn(async move {
            // sleep: how late the message is
            tokio::time::sleep(pause).await;
            if let Some(shared) = shared.upgrade() {
                shared.deliver(parcel);
            }
        });
    }

    pub(super) fn deliver(self: &Arc<Self>, parcel: Parcel) {
        match parcel {
            Parcel::Up { line, id, ask } => self.take(line, id, ask),
            Parcel::Down { connection, down } => {
                if let Some((_, client)) = self.state().open.get(&connection) {
                    let _ = client.send(down);
                }
            }
        }
    }

    /// Carries a request out and answers it.
    fn take(self: &Arc<Self>, line: Line, id: u64, ask: Ask) {
        let kind = ask.kind();
        let mut state = self.state();
        if state.run != line.run {
            return;
        }
        let newest = state.newest.get(&line.client).copied().unwrap_or_default();
        if kind == Kind::Hello {
            state
                .newest
                .insert(line.client, newest.max(line.connection));
        } else if newest != line.connection && self.config.plant != Some(Plant::OldConnectionHeard)
        {
            return;
        }
        *state.counts.entry((line.client, kind)).or_default() += 1;
        let answer = state.store.answer(line.client, ask);
        state.push_all(self);
        let latency = state.latency.1;
        drop(state);
        let down = Down::Answer { id, answer };
        let parcel = Parcel::Down {
            connection: line.connection,
            down,
        };
        self.send_down(line.client, Leg::Reply, kind, latency, parcel);
        self.changed.notify_one();
    }

    /// Messages with one latency keep their order: timers of one length fire in turn.
    fn send_down(
        self: &Arc<Self>,
        client: ClientId,
        leg: Leg,
        kind: Kind,
        latency: Duration,
        parcel: Parcel,
    ) {
        if latency.is_zero() {
            self.route(client, leg, kind, parcel);
            return;
        }
        let shared = Arc::downgrade(self);
        runtime::handle().spawn(async move {
            // sleep: the latency of the line
            tokio::time::sleep(latency).await;
            if let Some(shared) = shared.upgrade() {
                shared.route(client, leg, kind, parcel);
            }
        });
    }
}

impl State {
    /// Cuts the connections of some clients. What is under way on them may still arrive.
    pub(super) fn cut(&mut self, whose: impl Fn(ClientId) -> bool) {
        let now = Instant::now();
        let Self { open, cut, .. } = self;
        open.retain(|connection, (client, _)| {
            let goes = whose(*client);
            if goes {
                cut.insert(*connection, now);
            }
            !goes
        });
    }

    fn was_cut(&self, connection: u64, sent: Instant) -> bool {
        self.cut.get(&connection).is_some_and(|at| sent >= *at)
    }

    /// Sends what the store wants to be pushed, once the caller has left the lock.
    pub(super) fn push_all(&mut self, shared: &Arc<Shared>) {
        for (client, push) in self.store.take_pushes() {
            let Some(connection) = self.newest.get(&client).copied() else {
                continue;
            };
            let (kind, latency) = (push.kind(), self.latency.1);
            let parcel = Parcel::Down {
                connection,
                down: Down::Push(push),
            };
            let shared = Arc::clone(shared);
            runtime::handle().spawn(async move {
                shared.send_down(client, Leg::Push, kind, latency, parcel);
            });
        }
    }
}

impl Parcel {
    fn copy(&self) -> Self {
        match self {
            Self::Up { line, id, ask } => Self::Up {
                line: *line,
                id: *id,
                ask: ask.clone(),
            },
            Self::Down { connection, down } => Self::Down {
                connection: *connection,
                down: down.clone(),
            },
        }
    }
}
