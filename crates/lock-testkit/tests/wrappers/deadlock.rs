//! Deadlock detection across processes, over nothing but `inspect`.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{
    Capabilities, Change, DeadlockEdge, Error, Grant, Handoff, InspectPage, InspectQuery,
    KeyReport, LockBackend, LockKey, OwnerId, OwnerToken, Released, Renewal, Renewed, Request,
    Result, Step, Wait, runtime,
};

/// How often the store is looked at while somebody waits. A cycle has to be seen twice.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Ends the wait of exactly one attempt of a cycle: the highest attempt token of those that wait in
/// it, which every process works out alike.
#[derive(Clone, Debug)]
pub(crate) struct CrossDeadlock {
    inner: Arc<dyn LockBackend>,
    waits: Arc<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_attempt: HashMap<OwnerToken, Wanted>,
    watched: bool,
}

#[derive(Debug)]
struct Wanted {
    namespace: String,
    verdict: Arc<Handoff<Error>>,
}

/// Takes a wait out of the table when its future is dropped or done.
struct Registered {
    waits: Arc<Waits>,
    attempt: OwnerToken,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.waits.table().by_attempt.remove(&self.attempt);
    }
}

impl Waits {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CrossDeadlock {
    pub(crate) fn new(inner: Arc<dyn LockBackend>) -> Self {
        Self {
            inner,
            waits: Arc::default(),
        }
    }

    /// How many waits are watched.
    pub(crate) fn waiting(&self) -> usize {
        self.waits.table().by_attempt.len()
    }

    fn register(&self, key: &LockKey, attempt: OwnerToken) -> (Registered, Arc<Handoff<Error>>) {
        let verdict = Arc::new(Handoff::new());
        let wanted = Wanted {
            namespace: key.namespace().to_owned(),
            verdict: Arc::clone(&verdict),
        };
        let mut table = self.waits.table();
        table.by_attempt.insert(attempt, wanted);
        if !std::mem::replace(&mut table.watched, true) {
            let (inner, waits) = (Arc::clone(&self.inner), Arc::downgrade(&self.waits));
            runtime::handle().spawn(watch(inner, waits));
        }
        drop(table);
        let waits = Arc::clone(&self.waits);
        (Registered { waits, attempt }, verdict)
    }
}

/// Looks at the store until nobody waits.
async fn watch(inner: Arc<dyn LockBackend>, waits: Weak<Waits>) {
    let mut seen = BTreeSet::new();
    loop {
        // sleep: between two looks at the store
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(waits) = waits.upgrade() else {
            return;
        };
        let namespaces: BTreeSet<String> = {
            let mut table = waits.table();
            table.watched = !table.by_attempt.is_empty();
            if !table.watched {
                return;
            }
            let waits = table.by_attempt.values();
            waits.map(|wanted| wanted.namespace.clone()).collect()
        };
        let Ok(reports) = everything(&*inner, namespaces).await else {
            continue;
        };
        let found = cycles(&reports);
        for (attempts, edges) in &found {
            let victim = edges.keys().max();
            let verdict = victim
                .filter(|_| seen.contains(attempts))
                .and_then(|victim| {
                    let table = waits.table();
                    let wanted = table.by_attempt.get(victim)?;
                    Some(Arc::clone(&wanted.verdict))
                });
            if let Some(verdict) = verdict {
                let error = Error::deadlock(edges.values().cloned().collect());
                if let Some(waker) = verdict.give(error) {
                    waker.wake();
                }
            }
        }
        seen = found.into_keys().collect();
    }
}

async fn everything(
    inner: &dyn LockBackend,
    namespaces: BTreeSet<String>,
) -> Result<Vec<KeyReport>> {
    let mut reports = Vec::new();
    for namespace in namespaces {
        let mut query = InspectQuery::namespace(namespace);
        loop {
            let page = inner.inspect(query.clone()).await?;
            reports.extend(page.keys);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    }
    Ok(reports)
}

/// The waiting attempts of a cycle, each with its edge, in order of the tokens.
type Edges = std::collections::BTreeMap<OwnerToken, DeadlockEdge>;

/// Every cycle, by all attempts in it: those that wait and those that are held. A hand-over between
/// two looks changes the attempts, so a cycle that is seen twice was there all the time.
fn cycles(reports: &[KeyReport]) -> HashMap<BTreeSet<OwnerToken>, Edges> {
    let mut waits: HashMap<OwnerId, Vec<Blocked>> = HashMap::new();
    for report in reports {
        for (place, waiter) in report.waiters.iter().enumerate() {
            let Some(owner) = waiter.owner else {
                continue;
            };
            // Those ahead of it in the queue are in its way as much as the holders.
            let ahead = report.holders.iter().chain(&report.waiters[..place]);
            let ahead = ahead.filter_map(|party| Some((party.owner?, party.attempt)));
            let edge = DeadlockEdge::new(owner, report.key.clone(), waiter.mode, None);
            waits.entry(owner).or_default().push(Blocked {
                attempt: waiter.attempt,
                edge,
                by: ahead.collect(),
            });
        }
    }
    let mut found = HashMap::new();
    for start in waits.keys() {
        let mut path = Vec::new();
        walk(&waits, *start, *start, &mut path, &mut found);
    }
    found
}

struct Blocked {
    attempt: OwnerToken,
    edge: DeadlockEdge,
    by: Vec<(OwnerId, OwnerToken)>,
}

fn walk<'a>(
    waits: &'a HashMap<OwnerId, Vec<Blocked>>,
    start: OwnerId,
    at: OwnerId,
    path: &mut Vec<(&'a Blocked, OwnerToken)>,
    found: &mut HashMap<BTreeSet<OwnerToken>, Edges>,
) {
    for blocked in waits.get(&at).into_iter().flatten() {
        for (owner, in_the_way) in &blocked.by {
            path.push((blocked, *in_the_way));
            if *owner == start {
                let attempts = path.iter().flat_map(|(by, of)| [by.attempt, *of]).collect();
                let edges = path.iter().map(|(by, _)| (by.attempt, by.edge.clone()));
                found.insert(attempts, edges.collect());
            } else if !path.iter().any(|(seen, _)| seen.edge.owner == *owner) {
                walk(waits, start, *owner, path, found);
            }
            path.pop();
        }
    }
}

#[async_trait]
impl LockBackend for CrossDeadlock {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let step = self.inner.acquire(key, request);
        if request.owner.is_none() || request.wait == Wait::Now {
            return step;
        }
        let Step::Waiting(mut asked) = step else {
            return step;
        };
        let (this, key, attempt) = (self.clone(), key.clone(), request.attempt);
        Step::wait(async move {
            let (_registered, verdict) = this.register(&key, attempt);
            // On a verdict the caller hears an error, and so abandons the attempt.
            poll_fn(|context| {
                if let Poll::Ready(outcome) = asked.as_mut().poll(context) {
                    return Poll::Ready(outcome);
                }
                verdict.poll_take(context).map(Err)
            })
            .await
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        self.inner.alter(key, grant, change)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        self.inner.acquire_many(wanted)
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
