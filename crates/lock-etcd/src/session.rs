//! The lease that all locks and waiters of this process live by.
//!
//! Beside each lease stands a *gate*, a key of its own. Whatever makes a new record in the store asks
//! in the same step whether the gate is as it was when the request was made. Writing the gate anew
//! therefore ends every request that is still on its way, and so an acquire whose reply was lost can
//! be cleared up for good: without it, one that arrives late would leave a record that never expires.

mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{LeaseTerms, LossReason, OwnerToken, Validity};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::error::{Failure, Reason};
use crate::layout;
use crate::wire::{
    Answered, Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, Operation, RangeResponse, TxnRequest,
};
pub(crate) use sessions::Sessions;

/// A lease is renewed after this part of its life, and tried again after a smaller part.
const RENEW_AFTER: u32 = 3;
const RETRY_AFTER: u32 = 12;
/// A renewal may take this part of the lease's life.
const HANGS_AFTER: u32 = 6;
/// We stop to rely on a lease when this part of its life is left.
const STOP_MARGIN: u32 = 10;

#[derive(Debug)]
pub(crate) struct Session {
    /// Names it in the contract.
    pub(crate) id: OwnerToken,
    pub(crate) lease: i64,
    pub(crate) ttl: Duration,
    pub(crate) validity: Validity,
    pub(crate) opened: Instant,
    /// Whether its gate is watched.
    pub(crate) watched: AtomicBool,
    gate: Vec<u8>,
    gate_created: i64,
    gate_modified: AtomicI64,
    shutting_out: tokio::sync::Mutex<()>,
    retired: Notify,
}

impl Session {
    /// A new lease with its gate.
    pub(crate) async fn open(cluster: &Cluster, ttl: Duration) -> Result<Self, Failure> {
        let sent = Instant::now();
        let request = LeaseGrantRequest {
            ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        };
        // One whose reply is lost expires by itself.
        let granted: LeaseGrantResponse = cluster
            .write("/etcdserverpb.Lease/LeaseGrant", request)
            .await?;
        let gate = layout::gate(&cluster.config.prefix, granted.id);
        let mut txn = TxnRequest::default();
        txn.success
            .push(Operation::put(gate.clone(), Vec::new(), granted.id));
        let revision = cluster.txn(txn).await?.revision();
        let id = OwnerToken::mint();
        let terms = LeaseTerms { id, ttl };
        Ok(Self {
            id,
            lease: granted.id,
            ttl,
            validity: Validity::leased(terms, deadline(sent, ttl)),
            opened: sent,
            watched: AtomicBool::new(false),
            gate,
            gate_created: revision,
            gate_modified: AtomicI64::new(revision),
            shutting_out: tokio::sync::Mutex::new(()),
            retired: Notify::new(),
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.validity.loss().is_none()
    }

    pub(crate) fn gate(&self) -> &[u8] {
        &self.gate
    }

    /// When the gate was last written, as far as is known here.
    pub(crate) fn gate_at(&self) -> i64 {
        self.gate_modified.load(Ordering::Acquire)
    }

    /// That the lease lives, and that no request has been ended which knew the gate like this.
    pub(crate) fn is_open(&self, gate_at: i64) -> Compare {
        Compare::modified_at(self.gate.clone(), gate_at)
    }

    /// Takes note of the gate as a transaction found it. Returns whether there still is one.
    pub(crate) fn found(&self, gate: Option<&RangeResponse>) -> bool {
        let entry = gate.and_then(|range| range.kvs.first());
        let Some(entry) = entry.filter(|entry| entry.create_revision == self.gate_created) else {
            self.lose();
            return false;
        };
        self.gate_modified
            .fetch_max(entry.mod_revision, Ordering::AcqRel);
        true
    }

    /// Ends every request that is still on its way and knew the gate as it was at `gate_at`. What such
    /// a request did is in whatever is read from now on.
    pub(crate) async fn shut_out(&self, cluster: &Cluster, gate_at: i64) -> Result<(), Failure> {
        // A slow server loses many replies at once: one write ends them all.
        let _one_at_a_time = self.shutting_out.lock().await;
        if self.gate_at() > gate_at {
            return Ok(());
        }
        let mut txn = TxnRequest::default();
        txn.compare
            .push(Compare::created_at(self.gate.clone(), self.gate_created));
        txn.success
            .push(Operation::put(self.gate.clone(), Vec::new(), self.lease));
        let answer = cluster.txn(txn).await?;
        if !answer.succeeded {
            self.lose();
            return Err(Failure::no_lease());
        }
        self.gate_modified
            .fetch_max(answer.revision(), Ordering::AcqRel);
        Ok(())
    }

    /// The store no longer has it.
    pub(crate) fn lose(&self) {
        if self.validity.lose(LossReason::Revoked) {
            tracing::warn!(lease = %format_args!("{:x}", self.lease), "the session was lost");
        }
    }

    /// Stops to renew it, and gives it back.
    fn retire(&self) {
        self.retired.notify_one();
    }

    /// Renews it once. Returns until when it is good.
    pub(crate) async fn renew(&self, cluster: &Cluster) -> Result<Instant, Failure> {
        let sent = Instant::now();
        let limit = cluster.config.request_timeout.min(self.ttl / HANGS_AFTER);
        let until = self.validity.deadline().unwrap_or(sent).remaining();
        match cluster.keep_alive(self.lease, limit.min(until)).await {
            Ok(answer) if answer.ttl > 0 => {
                let granted = Duration::from_secs(answer.ttl.unsigned_abs());
                let deadline = deadline(sent, self.ttl.min(granted));
                self.validity.extend(deadline);
                Ok(deadline)
            }
            Ok(_) => {
                self.lose();
                Err(Failure::no_lease())
            }
            Err(failure) => {
                if failure.reason == Reason::NoLease {
                    self.lose();
                }
                Err(failure)
            }
        }
    }

    /// Renews it until it is lost or retired.
    async fn keep(self: Arc<Self>, cluster: Arc<Cluster>) {
        let mut due = self.opened + self.ttl / RENEW_AFTER;
        loop {
            // In short steps: the timer's clock stops in suspend, ours does not.
            let pause = due.remaining().min(Duration::from_secs(1));
            let retired = tokio::time::timeout(pause, self.retired.notified()).await;
            if retired.is_ok() {
                self.revoke(&cluster).await;
                return;
            }
            if !self.is_alive() {
                // Signalled by now. What the server still has must not outlive us.
                self.revoke(&cluster).await;
                return;
            }
            if !due.has_passed() {
                continue;
            }
            let sent = Instant::now();
            match self.renew(&cluster).await {
                Ok(_) => due = sent + self.ttl / RENEW_AFTER,
                Err(failure) => {
                    tracing::debug!(error = %failure.into_error(), "a renewal failed, trying again");
                    due = Instant::now() + self.ttl / RETRY_AFTER;
                }
            }
        }
    }

    /// Deletes the lease with all that stands under it, until it is confirmed or has expired.
    async fn revoke(&self, cluster: &Cluster) {
        let until = Instant::now() + self.ttl * 2;
        let request = LeaseRevokeRequest { id: self.lease };
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        while !until.has_passed() {
            let answer: Result<LeaseRevokeResponse, Failure> = cluster.write(path, request).await;
            match answer {
                Err(failure) if failure.passing => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// A lease counts from before its request was sent, and is relied on a margin less.
fn deadline(sent: Instant, ttl: Duration) -> Instant {
    sent + ttl - ttl / STOP_MARGIN
}
