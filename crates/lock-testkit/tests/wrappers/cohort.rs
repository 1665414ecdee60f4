//! A cohort: the waiters of one client queue here, and only one attempt of theirs competes outside.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use async_trait::async_trait;
use lock_core::clock::Instant;
use lock_core::{
    Capabilities, Change, Error, Fence, Grant, Handoff, InspectPage, InspectQuery, KeyQueue,
    LockBackend, LockKey, Mode, Ordering, OwnerToken, Party, Released, Renewal, Renewed, Request,
    Result, Step, Turn, Wait, runtime,
};
use tokio::task::AbortHandle;

/// Passes one remote grant on among the waiters of this client, at most `bound` times.
///
/// Only exclusive attempts join it; the others are forwarded as they are.
#[derive(Clone, Debug)]
pub(crate) struct Cohort {
    inner: Arc<dyn LockBackend>,
    bound: u32,
    /// Invariant: a key is here if and only if somebody holds or waits in its queue.
    keys: Arc<Mutex<HashMap<LockKey, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    queue: KeyQueue<Place>,
    outside: Outside,
}

type Turnout = Arc<Handoff<Result<Option<Grant>>>>;

#[derive(Clone, Debug)]
struct Place {
    turnout: Turnout,
    request: Request,
    grant: Option<Grant>,
}

#[derive(Debug)]
enum Outside {
    None,
    Asking(Minted, AbortHandle),
    Held(Remote),
}

/// A remote grant and what has been made of it.
#[derive(Debug)]
struct Remote {
    minted: Minted,
    grant: Grant,
    /// The fence of the holder in here.
    fence: Fence,
    handed_over: u32,
}

/// A remote attempt. Dropping it ends the attempt, in any state.
#[derive(Debug)]
struct Minted {
    inner: Arc<dyn LockBackend>,
    key: LockKey,
    attempt: OwnerToken,
    over: bool,
}

impl Drop for Minted {
    fn drop(&mut self) {
        if !self.over {
            self.inner.abandon(&self.key, self.attempt);
        }
    }
}

/// What is to be done once the table is left.
#[derive(Debug, Default)]
struct After {
    wake: Vec<Waker>,
    /// Ends its remote attempt when dropped.
    ended: Vec<Outside>,
}

impl After {
    fn give(&mut self, turnout: &Turnout, outcome: Result<Option<Grant>>) {
        self.wake.extend(turnout.give(outcome));
    }

    fn run(self) {
        for ended in &self.ended {
            if let Outside::Asking(_, task) = ended {
                task.abort();
            }
        }
        drop(self.ended);
        self.wake.into_iter().for_each(Waker::wake);
    }
}

impl Cohort {
    pub(crate) fn new(inner: Arc<dyn LockBackend>, bound: u32) -> Self {
        Self {
            inner,
            bound,
            keys: Arc::default(),
        }
    }

    /// How many keys are held or waited for in here.
    pub(crate) fn keys_in_use(&self) -> usize {
        self.keys().len()
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<LockKey, Entry>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the queue; `None` if that would be waiting and must not be.
    fn join(&self, key: &LockKey, request: &Request) -> Option<Turnout> {
        let mut keys = self.keys();
        let entry = keys.entry(key.clone()).or_insert_with(|| Entry {
            queue: KeyQueue::new(),
            outside: Outside::None,
        });
        let again = entry
            .queue
            .holder_mut(request.attempt)
            .map(|holder| holder.data.clone());
        if let Some(place) = again {
            let turnout = Turnout::default();
            drop(turnout.give(Ok(place.grant)));
            return Some(turnout);
        }
        if let Some(waiter) = entry.queue.waiter(request.attempt) {
            return Some(Arc::clone(&waiter.data.turnout));
        }
        if request.wait == Wait::Now && !entry.queue.is_idle() {
            return None;
        }
        let turnout = Turnout::default();
        entry.queue.enqueue(Party {
            attempt: request.attempt,
            mode: request.mode,
            priority: request.priority,
            data: Place {
                turnout: Arc::clone(&turnout),
                request: request.clone(),
                grant: None,
            },
        });
        if matches!(entry.outside, Outside::None) {
            entry.outside = self.compete(key, request);
        }
        Some(turnout)
    }

    /// Starts to compete outside, on behalf of whoever is at the head when it is won.
    fn compete(&self, key: &LockKey, head: &Request) -> Outside {
        let mut request = head.clone();
        request.attempt = OwnerToken::mint();
        if request.wait != Wait::Now {
            request.wait = Wait::Forever;
        }
        let minted = Minted {
            inner: Arc::clone(&self.inner),
            key: key.clone(),
            attempt: request.attempt,
            over: false,
        };
        let (this, key) = (self.clone(), key.clone());
        let task = runtime::handle().spawn(async move {
            let outcome = this.inner.acquire(&key, &request).finish().await;
            this.answered(&key, request.attempt, outcome);
        });
        Outside::Asking(minted, task.abort_handle())
    }

    fn answered(&self, key: &LockKey, remote: OwnerToken, outcome: Result<Option<Grant>>) {
        let mut after = After::default();
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(key) else {
            return;
        };
        let asking =
            matches!(&entry.outside, Outside::Asking(minted, _) if minted.attempt == remote);
        if !asking {
            return;
        }
        let Outside::Asking(mut minted, _) = std::mem::replace(&mut entry.outside, Outside::None)
        else {
            return;
        };
        match outcome {
            Ok(Some(grant)) => {
                let fence = grant.fence;
                entry.outside = Outside::Held(Remote {
                    minted,
                    grant,
                    fence,
                    handed_over: 0,
                });
                entry.let_in(&mut after);
            }
            refused => {
                minted.over = refused.is_ok();
                if !minted.over {
                    after.ended.push(Outside::Held(Remote::nothing(minted)));
                }
                let head = entry.queue.head().map(|head| head.attempt);
                if let Some(head) = head.and_then(|head| entry.queue.withdraw(head)) {
                    after.give(&head.data.turnout, refused);
                }
                self.go_on(key, &mut keys);
            }
        }
        drop(keys);
        after.run();
    }

    /// Competes for the next head, or forgets the key.
    fn go_on(&self, key: &LockKey, keys: &mut HashMap<LockKey, Entry>) {
        let Some(entry) = keys.get_mut(key) else {
            return;
        };
        let head = entry.queue.head();
        if let Some(request) = head.map(|head| head.data.request.clone()) {
            entry.outside = self.compete(key, &request);
        } else {
            keys.remove(key);
        }
    }

    /// Ends an attempt of ours. `None` if it is none; else the remote grant to give back, if any.
    fn leave(&self, key: &LockKey, attempt: OwnerToken) -> Option<Option<Remote>> {
        let mut after = After::default();
        let mut keys = self.keys();
        let entry = keys.get_mut(key)?;
        let held = entry.queue.holder_mut(attempt).is_some();
        entry.queue.withdraw(attempt)?;
        let mut given_up = None;
        if held && !entry.hand_over(self.bound, &mut after) {
            if let Outside::Held(remote) = std::mem::replace(&mut entry.outside, Outside::None) {
                given_up = Some(remote);
            }
            self.go_on(key, &mut keys);
        } else if entry.queue.is_idle() {
            // The last waiter is gone, and nobody needs what it competed for.
            after
                .ended
                .extend(keys.remove(key).map(|entry| entry.outside));
        }
        drop(keys);
        after.run();
        Some(given_up)
    }

    /// The remote grant that a holder of ours lives by.
    fn remote_of(&self, key: &LockKey, attempt: OwnerToken) -> Option<Grant> {
        let mut keys = self.keys();
        let entry = keys.get_mut(key)?;
        entry.queue.holder_mut(attempt)?;
        match &entry.outside {
            Outside::Held(remote) => Some(remote.grant.clone()),
            Outside::None | Outside::Asking(..) => None,
        }
    }

    fn altered(&self, key: &LockKey, attempt: OwnerToken, change: Change, remote: Grant) -> Grant {
        if change == Change::Detach {
            // It goes by its remote attempt now, which others know too.
            if let Some(Some(mut given_up)) = self.leave_for_good(key, attempt) {
                given_up.minted.over = true;
            }
            return remote;
        }
        let mut keys = self.keys();
        let holder = keys.get_mut(key);
        if let Some(entry) = holder
            && let Outside::Held(held) = &mut entry.outside
        {
            if change == Change::Downgrade {
                held.fence = remote.fence;
            }
            return Grant {
                attempt,
                fence: held.fence,
                validity: held.grant.validity.clone(),
            };
        }
        Grant { attempt, ..remote }
    }

    /// As `leave`, but hands nothing over.
    fn leave_for_good(&self, key: &LockKey, attempt: OwnerToken) -> Option<Option<Remote>> {
        if let Some(entry) = self.keys().get_mut(key)
            && let Outside::Held(held) = &mut entry.outside
        {
            held.handed_over = u32::MAX;
        }
        self.leave(key, attempt)
    }
}

impl Remote {
    /// An attempt that came to nothing.
    fn nothing(minted: Minted) -> Self {
        let grant = Grant {
            attempt: minted.attempt,
            fence: Fence::Shared(None),
            validity: None,
        };
        Self {
            minted,
            grant,
            fence: Fence::Shared(None),
            handed_over: 0,
        }
    }

    /// Whether the lease lasts long enough to be passed on.
    fn is_safely_good(&self) -> bool {
        let Some(validity) = &self.grant.validity else {
            return true;
        };
        let (lease, deadline) = (validity.lease(), validity.deadline());
        let left = deadline.map(Instant::remaining);
        validity.loss().is_none()
            && lease.is_none_or(|terms| left.is_none_or(|left| left > terms.ttl / 3))
    }
}

impl Entry {
    /// Lets the head in, under the remote grant.
    fn let_in(&mut self, after: &mut After) {
        let Outside::Held(remote) = &self.outside else {
            return;
        };
        let mut entered = false;
        self.queue.admit_heads(|head| {
            if std::mem::replace(&mut entered, true) {
                return Turn::Stay;
            }
            let grant = Grant {
                attempt: head.attempt,
                fence: remote.fence,
                validity: remote.grant.validity.clone(),
            };
            head.data.grant = Some(grant.clone());
            after.give(&head.data.turnout, Ok(Some(grant)));
            Turn::Enter
        });
    }

    /// Passes the remote grant to the next one in here, unless it has to be given back.
    fn hand_over(&mut self, bound: u32, after: &mut After) -> bool {
        let Outside::Held(remote) = &mut self.outside else {
            return false;
        };
        let Fence::Exclusive(number) = remote.fence else {
            return false;
        };
        let Some(next) = number.next_local() else {
            return false;
        };
        let wanted = self.queue.head().is_some();
        if !wanted || remote.handed_over >= bound || !remote.is_safely_good() {
            return false;
        }
        remote.fence = Fence::Exclusive(next);
        remote.handed_over += 1;
        self.let_in(after);
        true
    }
}

#[async_trait]
impl LockBackend for Cohort {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.ordering = Ordering::PerProcess;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if request.mode != Mode::Exclusive {
            return self.inner.acquire(key, request);
        }
        let (this, key, request) = (self.clone(), key.clone(), request.clone());
        Step::wait(async move {
            match this.join(&key, &request) {
                Some(turnout) => poll_fn(|context| turnout.poll_take(context)).await,
                None => Ok(None),
            }
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        match self.leave(key, grant.attempt) {
            None => self.inner.release(key, grant),
            Some(None) => Step::Ready(Ok(match &grant.validity {
                Some(validity) if validity.loss().is_some() => Released::AlreadyLost,
                _ => Released::Released,
            })),
            Some(Some(remote)) => {
                Step::wait(give_back(Arc::clone(&self.inner), key.clone(), remote))
            }
        }
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        match self.leave(key, attempt) {
            None => self.inner.abandon(key, attempt),
            Some(remote) => drop(remote),
        }
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let Some(remote) = self.remote_of(key, grant.attempt) else {
            return self.inner.alter(key, grant, change);
        };
        let (this, key, attempt) = (self.clone(), key.clone(), grant.attempt);
        self.inner
            .alter(&key.clone(), &remote, change)
            .map(move |outcome| outcome.map(|remote| this.altered(&key, attempt, change, remote)))
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
        let remote = attempt.and_then(|attempt| self.remote_of(key, attempt));
        let attempt = remote.map(|remote| remote.attempt).or(attempt);
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        let mut after = After::default();
        {
            let mut keys = self.keys();
            for entry in keys.values_mut() {
                for waiter in entry.queue.drain_waiters() {
                    let closed = Error::closed(self.capabilities().name);
                    after.give(&waiter.data.turnout, Err(closed));
                }
            }
            let idle = keys.extract_if(|_, entry| entry.queue.is_idle());
            after.ended.extend(idle.map(|(_, entry)| entry.outside));
        }
        after.run();
        self.inner.close().await
    }
}

/// Releases a remote grant.
///
/// Invariant: the whole of `remote` is in this future from the start, so that dropping it unpolled or
/// half-way ends the remote attempt. (An async block would take the parts it names, and drop the rest
/// at once.)
async fn give_back(
    inner: Arc<dyn LockBackend>,
    key: LockKey,
    mut remote: Remote,
) -> Result<Released> {
    let released = inner.release(&key, &remote.grant).finish().await;
    remote.minted.over = released.is_ok();
    released
}
