//! The loop that looks after what events alone do not settle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_core::clock::Instant;
use tokio::task::JoinHandle;

use super::Client;
use crate::version;
use crate::watch::Target;
use crate::wire::Span;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);
/// How often it asks who leads the servers.
const LEADER_EVERY: Duration = Duration::from_secs(2);

impl Client {
    /// Starts the loop, once.
    pub(crate) fn keep_up(self: &Arc<Self>) {
        if !self.kept_up.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).run_upkeep());
        }
    }

    async fn run_upkeep(self: Arc<Self>) {
        let mut seeking = self.seek_leader();
        let mut sought = Instant::now();
        version::warn_of_faults(&self.cluster).await;
        loop {
            drop(tokio::time::timeout(EVERY, self.stirred.notified()).await);
            if self.is_closed() && self.table.is_idle() {
                return;
            }
            if (sought + LEADER_EVERY).has_passed() && seeking.is_finished() {
                seeking = self.seek_leader();
                sought = Instant::now();
            }
            self.watch_holders();
            self.watch_sessions();
            for entry in self.mirror.overdue(self.config().check_again) {
                self.read_anew(entry);
            }
            for shard in self.mirror.sweep() {
                self.watches.remove(Target::Shard(shard));
            }
            self.table.sweep();
            for session in self.sessions.sweep() {
                self.watches.remove(Target::Gate(session));
            }
        }
    }

    /// Asks beside the loop, which goes on while a server is silent.
    fn seek_leader(&self) -> JoinHandle<()> {
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            if let Err(failure) = cluster.seek_leader().await {
                tracing::debug!(error = %failure.into_error(), "cannot ask who leads");
            }
        })
    }

    /// Records of locks that are held for a while are watched, so that their deletion is heard of.
    fn watch_holders(self: &Arc<Self>) {
        for hold in self.table.holds() {
            let lasts = (hold.since + EVERY).has_passed();
            if lasts && !hold.watched.swap(true, Ordering::AcqRel) {
                let key = hold.place.holder(hold.stand().mode, hold.attempt);
                self.watches
                    .add(self, Target::Holder(hold.attempt), Span::key(key));
            }
        }
    }

    /// So are the gates of sessions, which go when somebody revokes the lease.
    fn watch_sessions(self: &Arc<Self>) {
        for session in self.sessions.all() {
            let lasts = (session.opened + EVERY).has_passed();
            if lasts && session.is_alive() && !session.watched.swap(true, Ordering::AcqRel) {
                let gate = Span::key(session.gate().to_vec());
                self.watches.add(self, Target::Gate(session.id), gate);
            }
        }
    }
}
