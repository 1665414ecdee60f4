//! What one process keeps about one cluster: attempts, sessions, and what is watched.

mod table;
mod upkeep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Error, ErrorKind, LossReason, OwnerToken, Result};
use tokio::sync::Notify;

use crate::cluster::{Cluster, SharedCluster};
use crate::config::EtcdConfig;
use crate::error::{Failure, NAME, error};
use crate::layout::{Place, Shard};
use crate::line::Line;
use crate::mirror::{Entry, Mirror};
use crate::record::Process;
use crate::session::{Session, Sessions};
use crate::watch::{Target, Watches};
use crate::wire::{Answered, Event, KeyValue, RangeResponse, Span};
pub(crate) use table::{Asking, Hold, HoldState, Stage, Table};

/// How long to wait before the store is asked again.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) cluster: SharedCluster,
    pub(crate) process: OnceLock<Process>,
    pub(crate) table: Table,
    pub(crate) sessions: Sessions,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) watches: Watches,
    closed: AtomicBool,
    /// The upkeep has something to look at.
    stirred: Notify,
    kept_up: AtomicBool,
}

impl Client {
    pub(crate) fn new(cluster: Cluster) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::new(cluster),
            process: OnceLock::new(),
            table: Table::default(),
            sessions: Sessions::default(),
            mirror: Arc::default(),
            watches: Watches::new(),
            closed: AtomicBool::new(false),
            stirred: Notify::new(),
            kept_up: AtomicBool::new(false),
        })
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.cluster.config
    }

    pub(crate) fn place(&self, key: &lock_core::LockKey) -> Place {
        Place::new(&self.config().prefix, key)
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.get_or_init(Process::current)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The session for a lease of this life.
    pub(crate) async fn session(
        self: &Arc<Self>,
        ttl: Option<Duration>,
    ) -> Result<Arc<Session>, Failure> {
        self.keep_up();
        // Servers count in whole seconds.
        let ttl = ttl.unwrap_or_else(|| self.config().lease);
        let whole = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        self.sessions.with(&self.cluster, whole).await
    }

    /// Follows the lines of a shard.
    pub(crate) fn watch_shard(self: &Arc<Self>, shard: Shard) {
        if self.mirror.want(shard) {
            let span = shard.span(&self.config().prefix);
            self.watches.add(self, Target::Shard(shard), span);
        }
    }

    /// A watch is in place, and tells what happens after `revision`. What happened before is read.
    pub(crate) fn watched(self: &Arc<Self>, target: Target, revision: i64) {
        match target {
            Target::Shard(shard) => {
                for entry in self.mirror.started(shard, revision) {
                    self.read_anew(entry);
                }
            }
            Target::Holder(attempt) => self.check_soon(attempt),
            Target::Gate(id) => {
                let client = Arc::clone(self);
                tokio::spawn(async move { client.check_session(id).await });
            }
        }
    }

    pub(crate) fn not_watched(&self, target: Target) {
        if let Target::Shard(shard) = target {
            self.mirror.stopped(shard);
        }
    }

    pub(crate) fn watching_stopped(&self) {
        self.mirror.all_stopped();
        self.stirred.notify_one();
    }

    pub(crate) fn told(self: &Arc<Self>, target: Target, events: &[Event]) {
        match target {
            Target::Shard(shard) => {
                for entry in self.mirror.told(shard, events) {
                    self.look(&entry);
                }
            }
            // Only deletions are told of these.
            Target::Holder(attempt) => self.check_soon(attempt),
            Target::Gate(id) => {
                if let Some(session) = self.sessions.named(id) {
                    session.lose();
                }
            }
        }
    }

    /// Tells waiters of ours, and lets in those whose turn it is.
    pub(crate) fn look(self: &Arc<Self>, entry: &Arc<Entry>) {
        let Some(plan) = entry.look() else {
            return;
        };
        let (client, entry) = (Arc::clone(self), Arc::clone(entry));
        tokio::spawn(async move {
            match client.cluster.txn(plan.txn.clone()).await {
                Ok(answer) if answer.succeeded => {
                    let revision = answer.revision();
                    entry.carried_out(&plan, revision);
                    entry.promoted(revision);
                }
                Ok(answer) => {
                    entry.promoted(0);
                    client.take_in(&entry.place, answer.into_ranges().last());
                }
                Err(failure) => {
                    // Whether it was carried out is seen in the line.
                    tracing::debug!(error = %failure.into_error(), "a waiter's turn is in doubt");
                    tokio::time::sleep(AGAIN).await;
                    entry.promoted(0);
                    client.read_anew(entry);
                }
            }
        });
    }

    /// Takes in the line that a transaction found, and looks at it.
    pub(crate) fn take_in(
        self: &Arc<Self>,
        place: &Place,
        range: Option<&RangeResponse>,
    ) -> Option<Line> {
        let line = Line::read(place, range?);
        if let Some(entry) = self.mirror.read(&line) {
            self.look(&entry);
        }
        Some(line)
    }

    pub(crate) fn read_anew(self: &Arc<Self>, entry: Arc<Entry>) {
        let client = Arc::clone(self);
        tokio::spawn(async move {
            match client.cluster.range(&entry.place.all()).await {
                Ok(range) => {
                    entry.seed(Line::read(&entry.place, &range));
                    client.look(&entry);
                }
                // The upkeep comes back to it.
                Err(failure) => {
                    tracing::debug!(error = %failure.into_error(), "cannot read who waits");
                }
            }
        });
    }

    fn check_soon(self: &Arc<Self>, attempt: OwnerToken) {
        let client = Arc::clone(self);
        tokio::spawn(async move { client.check_holder(attempt).await });
    }

    /// Whether a holder's record is still there; asked until there is an answer.
    async fn check_holder(&self, attempt: OwnerToken) {
        let Some(hold) = self.table.hold(attempt) else {
            return;
        };
        while self.table.hold(attempt).is_some() && hold.session.is_alive() {
            // A change deletes the record and makes another one. Not kept over the pause: changes
            // and the release would wait for as long as nobody answers.
            let unchanged = hold.changing.lock().await;
            let stand = hold.stand();
            let span = Span::key(hold.place.holder(stand.mode, attempt));
            if let Ok(range) = self.cluster.range(&span).await {
                let same = |entry: &KeyValue| entry.create_revision == stand.created;
                if !range.kvs.first().is_some_and(same) {
                    hold.validity.lose(LossReason::Revoked);
                }
                return;
            }
            drop(unchanged);
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn check_session(&self, id: OwnerToken) {
        let Some(session) = self.sessions.named(id) else {
            return;
        };
        if let Ok(range) = self
            .cluster
            .range(&Span::key(session.gate().to_vec()))
            .await
        {
            session.found(Some(&range));
        }
    }

    /// Stops granting. Who waits hears so.
    pub(crate) fn start_closing(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        for asking in self.table.asking() {
            asking.answer(Err(Error::closed(NAME)));
            asking.give_up();
        }
        self.finish_if_done();
    }

    /// Gives the sessions back once nothing lives by them.
    pub(crate) fn finish_if_done(&self) {
        if self.is_closed() && self.table.is_idle() {
            self.sessions.retire_all();
            self.watches.end();
            self.stirred.notify_one();
        }
    }

    /// Stops granting, and waits until all that was given up is gone from the store.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        self.start_closing();
        let until = Instant::now() + self.config().patience;
        while self.table.has_debts() {
            if until.has_passed() {
                return Err(error(
                    ErrorKind::Indeterminate,
                    "some abandoned attempts are not confirmed; they end with the lease",
                ));
            }
            let changed = self.table.changed();
            drop(tokio::time::timeout(Duration::from_millis(50), changed).await);
        }
        Ok(())
    }
}
