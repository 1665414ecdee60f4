//! A complete backend in one file: locks for the tasks and threads of one process, in a plain map.
//!
//! ```text
//! cargo run -p lock-examples --example custom_backend
//! ```
//!
//! A backend decides who holds a key, and answers in plain values. Everything around that is done
//! by `lock-core`: guards, wait limits, cancellation, blocking callers, the order of the queue. So
//! this one has three parts to read: what it keeps (`Room`), what it promises (`capabilities`), and
//! how an attempt comes in and leaves.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::SystemTime;

use async_trait::async_trait;
use lock_core::fork::ForkLocal;
use lock_core::{
    Capabilities, Change, Error, ErrorKind, Fence, FencingNumber, Grant, Handoff, InspectPage,
    InspectQuery, KeyQueue, KeyReport, LeaseKind, LockBackend, LockKey, Mode, Ordering, OwnerToken,
    Party, PartyRecord, ProcessRecord, Released, Renewal, Renewed, Request, Result, Scope, Step,
    Wait, clock,
};
use lock_testkit::{Fault, Kit};

const NAME: &str = "room";

/// Exclusive and shared locks by name, in one map behind one mutex.
#[derive(Clone, Debug, Default)]
struct RoomBackend {
    /// A forked child gets an empty room of its own, and never touches its parent's mutex, which
    /// another thread may have held at the moment of the fork.
    room: Arc<ForkLocal<Mutex<Room>>>,
}

/// What is known about the keys in use. A key goes with its last user.
#[derive(Debug, Default)]
struct Room {
    keys: HashMap<LockKey, KeyQueue<Seat>>,
    /// One counter for all keys: fencing numbers must rise per key, also after the key was
    /// forgotten, and nothing is lost by gaps.
    last_base: u64,
    closed: bool,
}

/// What is kept about a holder or a waiter.
#[derive(Debug)]
struct Seat {
    request: Request,
    /// Since when it holds, or waits.
    since: SystemTime,
    fence: Fence,
    /// Where a waiter finds its grant.
    turn: Arc<Handoff<Result<Grant>>>,
}

#[async_trait]
impl LockBackend for RoomBackend {
    /// The suite tests what is declared here, and that everything else is refused.
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(NAME, Scope::Process, LeaseKind::KernelHeld);
        capabilities.ordering = Ordering::Global;
        capabilities.shared = true;
        capabilities
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        if let Err(error) = check(request) {
            return Step::Ready(Err(error));
        }
        match self.room().try_enter(key, request) {
            // Lazy: nothing is queued until the future is polled, so whoever decides not to wait
            // after all can just drop it.
            Ok(None) if request.wait != Wait::Now => {
                Step::wait(wait_turn(self.clone(), key.clone(), request.clone()))
            }
            answer => Step::Ready(answer),
        }
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        Step::Ready(Ok(if self.leave(key, grant.attempt) {
            Released::Released
        } else {
            Released::AlreadyLost
        }))
    }

    /// The same as a release, but nobody wants to know. It ends a waiting attempt as well.
    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.leave(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        Step::Ready(self.room().alter(key, grant, change))
    }

    async fn renew(&self, _batch: &[Renewal]) -> Result<Vec<Renewed>> {
        Err(Error::unsupported(NAME, "leases"))
    }

    fn acquire_many(&self, _wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        Step::Ready(Err(Error::unsupported(NAME, "several keys in one step")))
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        let room = self.room();
        let reports = room.keys.iter().map(|(key, queue)| {
            let mut report = KeyReport::idle(key.clone());
            report.holders = queue.holders().map(record).collect();
            report.waiters = queue.waiters().map(record).collect();
            report
        });
        Ok(query.page_of(reports.collect()))
    }

    async fn break_lock(&self, _key: &LockKey, _attempt: Option<OwnerToken>) -> Result<usize> {
        Err(Error::unsupported(NAME, "breaking a lock"))
    }

    async fn close(&self) -> Result<()> {
        let mut room = self.room();
        room.closed = true;
        let turned_away: Vec<Party<Seat>> = room
            .keys
            .values_mut()
            .flat_map(KeyQueue::drain_waiters)
            .collect();
        drop(room);
        let tell = |waiter: &Party<Seat>| waiter.data.turn.give(Err(Error::closed(NAME)));
        turned_away.iter().filter_map(tell).for_each(Waker::wake);
        Ok(())
    }
}

impl RoomBackend {
    fn room(&self) -> MutexGuard<'_, Room> {
        let room = self.room.get_or_init(Mutex::default);
        // Nothing below panics half-way through a change, so a poisoned room is still in order.
        room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an attempt, whether it holds or waits, and says whether it was there.
    fn leave(&self, key: &LockKey, attempt: OwnerToken) -> bool {
        // Invariant: wakers run, and what a caller handed in is dropped, after the room is left. A
        // waker may come straight back into this backend.
        let (gone, wakers) = self.room().leave(key, attempt);
        wakers.into_iter().for_each(Waker::wake);
        gone.is_some()
    }
}

/// Queues, then waits. Dropping it changes nothing: the attempt ends by `abandon`, which its caller
/// owes in any case.
async fn wait_turn(backend: RoomBackend, key: LockKey, request: Request) -> Result<Option<Grant>> {
    let turn = {
        let mut room = backend.room();
        // The holder may have left since the try: look again before queueing, under one lock, or
        // its hand-over would be missed.
        if let Some(grant) = room.try_enter(&key, &request)? {
            return Ok(Some(grant));
        }
        room.enqueue(&key, &request)
    };
    poll_fn(|context| turn.poll_take(context)).await.map(Some)
}

impl Room {
    /// Holds at once, or says that the key is contended.
    fn try_enter(&mut self, key: &LockKey, request: &Request) -> Result<Option<Grant>> {
        if self.closed {
            return Err(Error::closed(NAME));
        }
        let Self {
            keys, last_base, ..
        } = self;
        if let Some(queue) = keys.get_mut(key) {
            // Asking again under the same token is answered with the grant it already has.
            if let Some(holder) = queue.holder_mut(request.attempt) {
                return Ok(Some(grant(request.attempt, holder.data.fence)));
            }
            // Exclusive and shared can always take turns, so the only refusal is contention.
            if queue.admits(request.mode, request.priority).is_err() {
                return Ok(None);
            }
        }
        let fence = next_fence(last_base, request.mode)?;
        keys.entry(key.clone())
            .or_default()
            .enter(party(request, fence));
        Ok(Some(grant(request.attempt, fence)))
    }

    fn enqueue(&mut self, key: &LockKey, request: &Request) -> Arc<Handoff<Result<Grant>>> {
        // The fence of a waiter means nothing until it is granted.
        let party = party(request, Fence::Shared(None));
        let turn = Arc::clone(&party.data.turn);
        self.keys.entry(key.clone()).or_default().enqueue(party);
        turn
    }

    /// Takes an attempt out and hands the key to whoever is next: they hold it before anybody else
    /// can ask. Returns their wakers, to be woken by someone who holds no lock.
    fn leave(&mut self, key: &LockKey, attempt: OwnerToken) -> (Option<Party<Seat>>, Vec<Waker>) {
        let Self {
            keys, last_base, ..
        } = self;
        let mut wakers = Vec::new();
        let Some(queue) = keys.get_mut(key) else {
            return (None, wakers);
        };
        let gone = queue.leave(attempt, |next| {
            let fence = next_fence(last_base, next.mode);
            next.data.since = clock::coarse_wall_time();
            if let Ok(fence) = fence {
                next.data.fence = fence;
            }
            // A waiter that gets an error abandons its attempt, and the key passes on.
            let answer = fence.map(|fence| grant(next.attempt, fence));
            wakers.extend(next.data.turn.give(answer));
        });
        if queue.is_idle() {
            keys.remove(key);
        }
        (gone, wakers)
    }

    fn alter(&mut self, key: &LockKey, grant: &Grant, change: Change) -> Result<Grant> {
        let holder = self
            .keys
            .get_mut(key)
            .and_then(|queue| queue.holder_mut(grant.attempt));
        let holder = holder.ok_or_else(|| {
            Error::new(ErrorKind::Lost, "this attempt no longer holds it").with_key(key)
        })?;
        match change {
            Change::Transfer(owner) => holder.data.request.owner = Some(owner),
            // The room knows attempts, not guards: there is nothing to stop or to take over.
            Change::Detach | Change::Attach { .. } => {}
            other => return Err(Error::unsupported(NAME, format_args!("{other:?}"))),
        }
        Ok(grant.clone())
    }
}

/// Refuses what would be a promise with nothing behind it.
fn check(request: &Request) -> Result<()> {
    match request {
        Request {
            mode: Mode::Permit(_),
            ..
        } => Err(Error::unsupported(NAME, "permits")),
        Request { ttl: Some(_), .. } => Err(Error::unsupported(NAME, "a TTL")),
        Request {
            lock_delay: Some(_),
            ..
        } => Err(Error::unsupported(NAME, "lock_delay")),
        _ => Ok(()),
    }
}

/// A new number for an exclusive holder; only those may write.
fn next_fence(last_base: &mut u64, mode: Mode) -> Result<Fence> {
    if mode != Mode::Exclusive {
        return Ok(Fence::Shared(None));
    }
    *last_base += 1;
    FencingNumber::from_base(*last_base)
        .map(Fence::Exclusive)
        .ok_or_else(|| Error::new(ErrorKind::Backend, "fencing numbers are used up; restart"))
}

fn grant(attempt: OwnerToken, fence: Fence) -> Grant {
    // No validity: such a grant cannot be lost while the process lives.
    Grant {
        attempt,
        fence,
        validity: None,
    }
}

fn party(request: &Request, fence: Fence) -> Party<Seat> {
    Party {
        attempt: request.attempt,
        mode: request.mode,
        priority: request.priority,
        data: Seat {
            request: request.clone(),
            since: clock::coarse_wall_time(),
            fence,
            turn: Arc::default(),
        },
    }
}

fn record(party: &Party<Seat>) -> PartyRecord {
    let mut record = PartyRecord::new(party.attempt, party.mode, ProcessRecord::current());
    record.priority = party.priority;
    let request = &party.data.request;
    record.since = Some(party.data.since);
    record.owner = request.owner;
    record.label = request.label.as_deref().map(str::to_owned);
    record.record = request.record.as_deref().map(<[u8]>::to_vec);
    if let Fence::Exclusive(number) = party.data.fence {
        record.fencing = Some(number);
    }
    record
}

/// What the suite needs: clients of one store, and a look into it.
#[derive(Debug, Default)]
struct RoomKit {
    backend: RoomBackend,
}

#[async_trait]
impl Kit for RoomKit {
    fn name(&self) -> &str {
        NAME
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(Arc::new(self.backend.clone()))
    }

    fn closable_client(&self) -> Result<Arc<dyn LockBackend>> {
        // A room of its own: closing the shared one would end every other trial.
        Ok(Arc::new(RoomBackend::default()))
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        Err("the room is memory of one process")
    }

    fn open(&self, _spec: &str) -> Result<Arc<dyn LockBackend>> {
        Err(Error::unsupported(NAME, "a second process"))
    }

    /// Nothing may stay behind once nobody holds or waits.
    async fn stored(&self) -> Result<Vec<String>> {
        Ok(self
            .backend
            .room()
            .keys
            .keys()
            .map(ToString::to_string)
            .collect())
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        Some("there is nothing outside the process that could fail")
    }

    async fn inflict(&self, _fault: Fault, _key: &LockKey) -> Result<()> {
        Err(Error::unsupported(NAME, "faults"))
    }
}

/// Runs every case of the suite; `-- exclusive` runs a part of it, `-- --list` tells the names.
fn main() -> std::process::ExitCode {
    lock_testkit::main(RoomKit::default())
}
