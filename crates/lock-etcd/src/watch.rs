//! The stream on which the servers tell what happens, opened only where somebody has to hear it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::OwnerToken;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::cluster::Route;
use crate::error::Failure;
use crate::layout::Shard;
use crate::wire::{
    Answered, CancelWatch, CreateWatch, Event, NO_PUT, Span, WatchOrder, WatchRequest,
    WatchResponse,
};

/// How long to wait before a stream that broke is opened again, the first time and at most.
const REOPEN: Duration = Duration::from_millis(50);
const REOPEN_AT_MOST: Duration = Duration::from_secs(2);
/// How long a watch that the server ended is left off.
const RENEW_WATCH: Duration = Duration::from_secs(1);

/// What is watched, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// All records of some keys, because somebody waits for one of them.
    Shard(Shard),
    /// One holder's record, which somebody may delete.
    Holder(OwnerToken),
    /// A session's gate, which goes with its lease.
    Gate(OwnerToken),
}

impl Target {
    /// Writes matter only where the line is followed.
    fn filters(self) -> Vec<i32> {
        match self {
            Self::Shard(_) => Vec::new(),
            Self::Holder(_) | Self::Gate(_) => vec![NO_PUT],
        }
    }
}

enum Order {
    Add(Target, Span),
    Remove(Target),
    End,
}

/// The way to the task that owns the stream.
pub(crate) struct Watches {
    orders: mpsc::UnboundedSender<Order>,
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
}

impl Watches {
    pub(crate) fn new() -> Self {
        let (orders, waiting) = mpsc::unbounded_channel();
        Self {
            orders,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    pub(crate) fn add(&self, client: &Arc<Client>, target: Target, span: Span) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(orders) = waiting {
            tokio::spawn(Stream::new(Arc::clone(client), orders).run());
        }
        let _ = self.orders.send(Order::Add(target, span));
    }

    pub(crate) fn remove(&self, target: Target) {
        let _ = self.orders.send(Order::Remove(target));
    }

    /// Ends the task.
    pub(crate) fn end(&self) {
        let _ = self.orders.send(Order::End);
    }
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watches(..)")
    }
}

struct Stream {
    client: Arc<Client>,
    orders: mpsc::UnboundedReceiver<Order>,
    wanted: HashMap<Target, Span>,
    /// By number on the stream in use.
    targets: HashMap<i64, Target>,
    numbers: HashMap<Target, i64>,
    last: i64,
}

/// Why a stream is no longer used.
enum Over {
    Broken,
    Unwanted,
    Ended,
}

impl Stream {
    fn new(client: Arc<Client>, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            client,
            orders,
            wanted: HashMap::new(),
            targets: HashMap::new(),
            numbers: HashMap::new(),
            last: 0,
        }
    }

    async fn run(mut self) {
        let mut pause = REOPEN;
        loop {
            while self.wanted.is_empty() {
                match self.orders.recv().await {
                    Some(order) => {
                        if self.take(order).is_none() {
                            return;
                        }
                    }
                    None => return,
                }
            }
            match self.watch().await {
                Ok(Over::Ended) => return,
                Ok(Over::Unwanted) => pause = REOPEN,
                Ok(Over::Broken) => {
                    self.client.watching_stopped();
                    pause = REOPEN;
                }
                Err(failure) => {
                    tracing::debug!(error = %failure.into_error(), "cannot watch, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(REOPEN_AT_MOST);
                }
            }
        }
    }

    /// Takes an order without a stream. `None` to end.
    fn take(&mut self, order: Order) -> Option<()> {
        match order {
            Order::Add(target, span) => drop(self.wanted.insert(target, span)),
            Order::Remove(target) => drop(self.wanted.remove(&target)),
            Order::End => return None,
        }
        Some(())
    }

    /// One stream, until it breaks or nobody wants it.
    async fn watch(&mut self) -> Result<Over, Failure> {
        let cluster = Arc::clone(&self.client.cluster);
        let mut moves = cluster.moves();
        let route = cluster.route().await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        (self.targets, self.numbers) = Default::default();
        for target in self.wanted.keys().copied().collect::<Vec<_>>() {
            self.create(&sender, target);
        }
        let opening = cluster.watch(&route, receiver);
        let limit = cluster.config.request_timeout * 2;
        let opened = tokio::time::timeout(limit, opening).await;
        let mut answers = match opened {
            Ok(opened) => opened?,
            Err(_) => {
                cluster.give_up(&route);
                return Err(Failure::unsent("the watch was not opened in time"));
            }
        };
        let mut again = tokio::time::interval(RENEW_WATCH);
        loop {
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.hear(answer),
                    Ok(None) => return Ok(Over::Broken),
                    Err(status) => {
                        self.broken(&route, &status);
                        return Ok(Over::Broken);
                    }
                },
                order = self.orders.recv() => match order {
                    Some(order) => {
                        if !self.obey(&sender, order) {
                            return Ok(Over::Ended);
                        }
                        if self.wanted.is_empty() {
                            return Ok(Over::Unwanted);
                        }
                    }
                    None => return Ok(Over::Ended),
                },
                _ = moves.changed() => {
                    if cluster.has_left(&route) {
                        return Ok(Over::Broken);
                    }
                }
                _ = again.tick() => {
                    // Those that the server ended.
                    let missing = |target: &Target| !self.numbers.contains_key(target);
                    let missing: Vec<_> = self.wanted.keys().copied().filter(missing).collect();
                    for target in missing {
                        self.create(&sender, target);
                    }
                }
            }
        }
    }

    fn broken(&self, route: &Route, status: &tonic::Status) {
        tracing::debug!(%status, "the stream of events broke");
        self.client.cluster.give_up(route);
    }

    fn create(&mut self, sender: &mpsc::UnboundedSender<WatchRequest>, target: Target) {
        let Some(span) = self.wanted.get(&target) else {
            return;
        };
        self.last += 1;
        let create = CreateWatch {
            key: span.start.clone(),
            range_end: span.end.clone(),
            filters: target.filters(),
            watch_id: self.last,
        };
        self.targets.insert(self.last, target);
        self.numbers.insert(target, self.last);
        let order = Some(WatchOrder::Create(create));
        let _ = sender.send(WatchRequest { order });
    }

    /// Returns whether to go on.
    fn obey(&mut self, sender: &mpsc::UnboundedSender<WatchRequest>, order: Order) -> bool {
        match order {
            Order::Add(target, span) => {
                if self.wanted.insert(target, span).is_none() {
                    self.create(sender, target);
                }
            }
            Order::Remove(target) => {
                self.wanted.remove(&target);
                if let Some(number) = self.numbers.remove(&target) {
                    self.targets.remove(&number);
                    let order = Some(WatchOrder::Cancel(CancelWatch { watch_id: number }));
                    let _ = sender.send(WatchRequest { order });
                }
            }
            Order::End => return false,
        }
        true
    }

    fn hear(&mut self, answer: WatchResponse) {
        self.client.cluster.revisions.saw(answer.revision());
        let Some(target) = self.targets.get(&answer.watch_id).copied() else {
            return;
        };
        if answer.canceled {
            // Compacted, or not permitted: it is asked for again, and what was missed is read.
            tracing::debug!(reason = answer.cancel_reason, "the server ended a watch");
            self.targets.remove(&answer.watch_id);
            self.numbers.remove(&target);
            self.client.not_watched(target);
            return;
        }
        if answer.created {
            self.client.watched(target, answer.revision());
        }
        let events: Vec<Event> = answer.events;
        if !events.is_empty() {
            self.client.told(target, &events);
        }
    }
}
