//! The loop that renews leases, and declares those lost that it could not renew in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock::Instant;
use crate::fork::ForkLocal;
use crate::{
    Capabilities, Change, Grant, InspectPage, InspectQuery, LeaseTerms, LockBackend, LockKey,
    LossReason, OwnerToken, Released, Renewal, Renewed, Request, Result, Step, Validity, runtime,
};

/// A lease is renewed after this part of its life.
const RENEW_AFTER: u32 = 3;
/// After a failed renewal the next try comes after this part of the lease's life.
const RETRY_AFTER: u32 = 12;
/// A renewal that is not answered within this part of the shortest life counts as failed, so that
/// there is time for another one.
const HANGS_AFTER: u32 = 4;
/// Leases that fall due within this time of each other are renewed in one batch, as a part of life.
const BATCH_WITHIN: u32 = 12;

/// Renews the leases of a backend for as long as their guards live.
///
/// Sits directly around a backend with leases, below every other wrapper. Runs on the lock I/O
/// thread, so a busy caller keeps its lease. Renewal starts at a third of the lease's life and takes
/// all leases that are due in one batch. A renewal that fails or hangs is not a loss: it is tried
/// again until the deadline, which counts from before the last good renewal was sent.
#[derive(Clone, Debug)]
pub struct Keepalive {
    inner: Arc<dyn LockBackend>,
    leases: Arc<ForkLocal<Leases>>,
}

impl Keepalive {
    /// Renews the leases that `inner` grants.
    pub fn new(inner: Arc<dyn LockBackend>) -> Self {
        Self {
            inner,
            leases: Arc::default(),
        }
    }

    fn leases(&self) -> &Leases {
        self.leases.get_or_init(Leases::default)
    }

    /// Starts to renew a grant's lease.
    fn keep(&self, key: &LockKey, grant: &Grant) {
        let Some(validity) = &grant.validity else {
            return;
        };
        let Some(terms) = validity.lease() else {
            return;
        };
        if self.leases().insert(key, grant.attempt, terms, validity) {
            let this = self.clone();
            runtime::handle().spawn(async move { this.run().await });
        }
    }

    /// The loop: ends when no lease is left.
    async fn run(self) {
        loop {
            let Some(plan) = self.leases().plan() else {
                return;
            };
            if !plan.due.is_empty() {
                let this = self.clone();
                // On its own, so that a hung server does not hold up the deadlines of others.
                runtime::handle().spawn(async move { this.renew_due(plan.due).await });
            }
            let changed = self.leases().changed.notified();
            // The earliest of: the next renewal, the next deadline, a change of the table.
            drop(tokio::time::timeout(plan.next.remaining(), changed).await);
        }
    }

    async fn renew_due(&self, batch: Vec<Renewal>) {
        let outcomes = match self.renew_in_time(&batch).await {
            Ok(outcomes) => outcomes,
            Err(reason) => {
                tracing::warn!(leases = batch.len(), reason, "renewal failed, trying again");
                Vec::new()
            }
        };
        let mut outcomes = outcomes.into_iter();
        for renewal in &batch {
            // Every one of them, or a lease without an outcome would be in flight for ever.
            self.leases().settle(renewal, outcomes.next());
        }
    }

    async fn renew_in_time(&self, batch: &[Renewal]) -> Result<Vec<Renewed>, String> {
        let shortest = batch.iter().map(|renewal| renewal.ttl).min();
        let limit = shortest.unwrap_or_default() / HANGS_AFTER;
        let (inner, batch) = (Arc::clone(&self.inner), batch.to_vec());
        // A task of its own, so that a backend that panics is one that failed.
        let mut renewal = JoinSet::new();
        renewal.spawn_on(async move { inner.renew(&batch).await }, runtime::handle());
        match tokio::time::timeout(limit, renewal.join_next()).await {
            Ok(Some(Ok(outcome))) => outcome.map_err(|error| error.to_string()),
            Ok(Some(Err(panic))) => Err(panic.to_string()),
            Ok(None) | Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// The leases of this process.
#[derive(Debug, Default)]
struct Leases {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// By lease, for a session's lease serves many attempts.
    leases: HashMap<OwnerToken, Kept>,
    /// Which lease an attempt lives by.
    attempts: HashMap<OwnerToken, OwnerToken>,
    running: bool,
    /// When the loop looks again by itself.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    key: LockKey,
    validity: Validity,
    ttl: Duration,
    attempts: usize,
    due: Instant,
    in_flight: bool,
}

struct Plan {
    due: Vec<Renewal>,
    next: Instant,
}

impl Leases {
    /// Returns whether a loop has to be started.
    fn insert(
        &self,
        key: &LockKey,
        attempt: OwnerToken,
        terms: LeaseTerms,
        validity: &Validity,
    ) -> bool {
        let mut table = self.table();
        let due = Instant::now() + terms.ttl / RENEW_AFTER;
        if table.attempts.insert(attempt, terms.id).is_none() {
            let kept = table.leases.entry(terms.id).or_insert_with(|| Kept {
                key: key.clone(),
                validity: validity.clone(),
                ttl: terms.ttl,
                attempts: 0,
                due,
                in_flight: false,
            });
            kept.attempts += 1;
        }
        let start = !std::mem::replace(&mut table.running, true);
        // The loop goes through the whole table, so it is woken only for what it would miss.
        let ends = validity
            .deadline()
            .map_or(due, |deadline| deadline.min(due));
        let is_late = table.next.is_none_or(|next| ends < next);
        drop(table);
        if is_late {
            self.changed.notify_one();
        }
        start
    }

    /// Stops renewing for an attempt.
    fn remove(&self, attempt: OwnerToken) {
        let mut table = self.table();
        let Some(lease) = table.attempts.remove(&attempt) else {
            return;
        };
        if let Some(kept) = table.leases.get_mut(&lease) {
            kept.attempts -= 1;
            if kept.attempts == 0 {
                table.leases.remove(&lease);
            }
        }
    }

    /// Signals what has expired, and says what to renew now and when to look again.
    fn plan(&self) -> Option<Plan> {
        let mut table = self.table();
        let mut expired = Vec::new();
        let now = Instant::now();
        let mut plan = Plan {
            due: Vec::new(),
            next: now + Duration::from_secs(3600),
        };
        for (lease, kept) in &mut table.leases {
            let Some(deadline) = kept.validity.deadline() else {
                continue;
            };
            if now >= deadline {
                expired.push((*lease, kept.validity.clone()));
                continue;
            }
            plan.next = plan.next.min(deadline);
            if kept.in_flight {
                continue;
            }
            if kept.due <= now + kept.ttl / BATCH_WITHIN {
                kept.in_flight = true;
                let renewal = Renewal {
                    key: kept.key.clone(),
                    lease: *lease,
                    ttl: kept.ttl,
                };
                plan.due.push(renewal);
            } else {
                plan.next = plan.next.min(kept.due);
            }
        }
        for (lease, _) in &expired {
            table.leases.remove(lease);
            table.attempts.retain(|_, of| of != lease);
        }
        let idle = table.leases.is_empty();
        table.running = !idle;
        table.next = (!idle).then_some(plan.next);
        drop(table);
        for (_, validity) in expired {
            validity.lose(LossReason::Expired);
        }
        (!idle).then_some(plan)
    }

    fn settle(&self, renewal: &Renewal, outcome: Option<Renewed>) {
        let mut table = self.table();
        let Some(kept) = table.leases.get_mut(&renewal.lease) else {
            return;
        };
        kept.in_flight = false;
        let mut lost = None;
        match outcome {
            Some(Renewed::Until(deadline)) => {
                kept.validity.extend(deadline);
                kept.due = Instant::now() + kept.ttl / RENEW_AFTER;
            }
            Some(Renewed::Lost) => {
                lost = Some(kept.validity.clone());
                table.leases.remove(&renewal.lease);
                table.attempts.retain(|_, of| *of != renewal.lease);
            }
            Some(Renewed::Failed(_)) | None => kept.due = Instant::now() + kept.ttl / RETRY_AFTER,
        }
        drop(table);
        if let Some(validity) = lost {
            validity.lose(LossReason::Revoked);
        }
        self.changed.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LockBackend for Keepalive {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let (this, key_kept) = (self.clone(), key.clone());
        self.inner.acquire(key, request).map(move |outcome| {
            if let Ok(Some(grant)) = &outcome {
                this.keep(&key_kept, grant);
            }
            outcome
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        // First, so that a renewal on its way finds nothing to extend. It could not re-create it.
        self.leases().remove(grant.attempt);
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.leases().remove(attempt);
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        if change == Change::Detach {
            self.leases().remove(grant.attempt);
        }
        let (this, key_kept) = (self.clone(), key.clone());
        self.inner.alter(key, grant, change).map(move |outcome| {
            if let (Change::Attach { .. }, Ok(grant)) = (change, &outcome) {
                this.keep(&key_kept, grant);
            }
            outcome
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let this = self.clone();
        let keys: Vec<LockKey> = wanted.iter().map(|(key, _)| key.clone()).collect();
        self.inner.acquire_many(wanted).map(move |outcome| {
            if let Ok(Some(grants)) = &outcome {
                for (key, grant) in keys.iter().zip(grants) {
                    this.keep(key, grant);
                }
            }
            outcome
        })
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
