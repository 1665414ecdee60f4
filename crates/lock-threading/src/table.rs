//! The table of keys in use.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::SystemTime;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use lock_core::fork::ForkLocal;
use lock_core::{
    Change, Fence, FencingNumber, Grant, Handoff, InspectPage, InspectQuery, KeyQueue, KeyReport,
    LockKey, Mode, OwnerId, OwnerToken, Party, PartyRecord, ProcessRecord, ReadVersion, Refusal,
    Request, Result, Slot, clock, runtime,
};
use smallvec::SmallVec;

use crate::backend::{closed, mode_conflict, not_held, numbers_used_up};

/// One table per process along a line of forks.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    per_process: ForkLocal<Table>,
    closed: AtomicBool,
}

impl Tables {
    pub(crate) fn current(&self) -> View<'_> {
        View {
            table: self.per_process.get_or_init(Table::default),
            closed: &self.closed,
        }
    }

    pub(crate) fn close(&self) {
        // Invariant: set before any shard is visited, and read under the shard's lock by whoever
        // enters or queues; so nobody can queue in a shard that has been drained.
        self.closed.store(true, Ordering::SeqCst);
        self.current().drain();
    }
}

/// Where a waiter finds its grant.
type Turn = Arc<Handoff<Result<Grant>>>;

/// Wakers to run once the table's locks are left. Releasing wakes one waiter, or a few readers.
type Wakers = SmallVec<[Waker; 2]>;

/// How an attempt came in.
pub(crate) enum Entered {
    Holds(Grant),
    Waits(Turn),
}

/// Keys that are held or waited for, and nothing else: an entry goes with its last user.
#[derive(Debug)]
struct Table {
    keys: DashMap<LockKey, KeyQueue<Details>, RandomState>,
    /// The last fencing base of each group of keys. One counter for all would be fought over by
    /// every core; one per key would have to outlive the key.
    bases: [AtomicU64; 64],
}

impl Default for Table {
    fn default() -> Self {
        Self {
            keys: DashMap::default(),
            bases: [const { AtomicU64::new(0) }; 64],
        }
    }
}

/// What is kept about a holder or waiter.
#[derive(Debug)]
struct Details {
    owner: Option<OwnerId>,
    label: Option<Arc<str>>,
    record: Option<Arc<[u8]>>,
    since: SystemTime,
    fence: Fence,
    turn: Option<Turn>,
}

#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    table: &'a Table,
    closed: &'a AtomicBool,
}

impl View<'_> {
    pub(crate) fn len(self) -> usize {
        self.table.keys.len()
    }

    /// Holds at once, or says that the key is contended.
    pub(crate) fn try_enter(self, key: &LockKey, request: &Request) -> Result<Option<Grant>> {
        match self.table.keys.entry(key.clone()) {
            Entry::Occupied(mut entry) => self.try_enter_queue(entry.get_mut(), key, request),
            Entry::Vacant(entry) => {
                let mut queue = KeyQueue::new();
                let granted = self.try_enter_queue(&mut queue, key, request)?;
                entry.insert(queue);
                Ok(granted)
            }
        }
    }

    /// Holds at once, or queues.
    pub(crate) fn enter_or_enqueue(self, key: &LockKey, request: &Request) -> Result<Entered> {
        let mut queue = self.table.keys.entry(key.clone()).or_default();
        match self.try_enter_queue(&mut queue, key, request) {
            Ok(None) => {}
            Ok(Some(grant)) => return Ok(Entered::Holds(grant)),
            Err(error) => {
                drop(queue);
                self.forget_if_idle(key);
                return Err(error);
            }
        }
        // Asking again while it waits takes no second place.
        if let Some(turn) = queue
            .waiter(request.attempt)
            .and_then(|it| it.data.turn.clone())
        {
            return Ok(Entered::Waits(turn));
        }
        let turn = Turn::default();
        let mut party = party(request, Fence::Shared(None));
        party.data.turn = Some(Arc::clone(&turn));
        queue.enqueue(party);
        Ok(Entered::Waits(turn))
    }

    fn try_enter_queue(
        self,
        queue: &mut KeyQueue<Details>,
        key: &LockKey,
        request: &Request,
    ) -> Result<Option<Grant>> {
        // Asking again under the same token is answered with the grant it already has.
        if let Some(holder) = queue.holder_mut(request.attempt) {
            return Ok(Some(Grant {
                attempt: request.attempt,
                fence: holder.data.fence,
                validity: None,
            }));
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        match queue.admits(request.mode, request.priority) {
            Ok(()) => {
                let fence = self.fence(queue, key, request.mode)?;
                queue.enter(party(request, fence));
                Ok(Some(Grant {
                    attempt: request.attempt,
                    fence,
                    validity: None,
                }))
            }
            Err(Refusal::Contended) => Ok(None),
            Err(Refusal::Conflict(other)) => Err(mode_conflict(key, request.mode, other)),
        }
    }

    /// Ends an attempt in any state; returns whether it was there.
    pub(crate) fn leave(self, key: &LockKey, attempt: OwnerToken) -> bool {
        let mut wakers = Wakers::new();
        let gone = {
            let Entry::Occupied(mut entry) = self.table.keys.entry(key.clone()) else {
                return false;
            };
            let mut granted = SmallVec::<[OwnerToken; 2]>::new();
            let queue = entry.get_mut();
            let gone = queue.leave(attempt, |party| granted.push(party.attempt));
            self.hand_over(queue, key, &granted, &mut wakers);
            let idle = queue.is_idle();
            // The entry goes with its last user; what it held is dropped with the shard left.
            (gone, idle.then(|| entry.remove()))
        };
        wakers.into_iter().for_each(runtime::wake);
        gone.0.is_some()
    }

    /// Forgets a key that was entered into the table for nothing.
    fn forget_if_idle(self, key: &LockKey) {
        self.table.keys.remove_if(key, |_, queue| queue.is_idle());
    }

    pub(crate) fn alter(self, key: &LockKey, grant: &Grant, change: Change) -> Result<Grant> {
        let mut wakers = Wakers::new();
        let altered = {
            let Some(mut queue) = self.table.keys.get_mut(key) else {
                return Err(not_held(key));
            };
            let altered = self.alter_holder(&mut queue, key, grant.attempt, change, &mut wakers);
            altered.map(|fence| Grant {
                fence,
                ..grant.clone()
            })
        };
        wakers.into_iter().for_each(runtime::wake);
        altered
    }

    fn alter_holder(
        self,
        queue: &mut KeyQueue<Details>,
        key: &LockKey,
        attempt: OwnerToken,
        change: Change,
        wakers: &mut Wakers,
    ) -> Result<Fence> {
        if matches!(change, Change::Downgrade) {
            let mut granted = SmallVec::<[OwnerToken; 2]>::new();
            match queue.downgrade(attempt, |party| granted.push(party.attempt)) {
                Ok(Some(())) => {}
                Ok(None) => return Err(not_held(key)),
                Err(other) => return Err(mode_conflict(key, Mode::Shared, other)),
            }
            self.hand_over(queue, key, &granted, wakers);
        }
        let holder = queue.holder_mut(attempt).ok_or_else(|| not_held(key))?;
        match change {
            Change::Downgrade => {
                if let Fence::Exclusive(number) = holder.data.fence {
                    holder.data.fence = Fence::Shared(Some(ReadVersion(number)));
                }
            }
            Change::Transfer(owner)
            | Change::Attach {
                owner: Some(owner), ..
            } => holder.data.owner = Some(owner),
            // The table holds for whoever knows the attempt: there is nothing to stop or take over.
            _ => {}
        }
        Ok(holder.data.fence)
    }

    /// Gives new holders their grants.
    fn hand_over(
        self,
        queue: &mut KeyQueue<Details>,
        key: &LockKey,
        granted: &[OwnerToken],
        wakers: &mut Wakers,
    ) {
        for &attempt in granted {
            let Some(mode) = queue.holder_mut(attempt).map(|holder| holder.mode) else {
                continue;
            };
            let fence = self.fence(queue, key, mode);
            let Some(holder) = queue.holder_mut(attempt) else {
                continue;
            };
            holder.data.since = clock::coarse_wall_time();
            if let Ok(fence) = fence {
                holder.data.fence = fence;
            }
            // A waiter that is told of an error abandons its attempt, which passes the lock on.
            let grant = fence.map(|fence| Grant {
                attempt,
                fence,
                validity: None,
            });
            wakers.extend(holder.data.turn.take().and_then(|turn| turn.give(grant)));
        }
    }

    fn fence(self, queue: &KeyQueue<Details>, key: &LockKey, mode: Mode) -> Result<Fence> {
        match mode {
            Mode::Exclusive => {
                let group =
                    self.table.keys.hasher().hash_one(key) as usize % self.table.bases.len();
                let base = self.table.bases[group].fetch_add(1, Ordering::Relaxed) + 1;
                FencingNumber::from_base(base)
                    .map(Fence::Exclusive)
                    .ok_or_else(numbers_used_up)
            }
            Mode::Shared => Ok(Fence::Shared(None)),
            Mode::Permit(permits) => {
                let taken = |slot: u32| {
                    queue
                        .holders()
                        .any(|holder| holder.data.fence == Fence::Permit(Slot(slot)))
                };
                let free = (0..permits.of()).find(|slot| !taken(*slot)).unwrap_or(0);
                Ok(Fence::Permit(Slot(free)))
            }
        }
    }

    fn drain(self) {
        let mut told = Vec::new();
        for mut queue in self.table.keys.iter_mut() {
            told.extend(queue.drain_waiters().filter_map(|party| party.data.turn));
        }
        for turn in told {
            if let Some(waker) = turn.give(Err(closed())) {
                runtime::wake(waker);
            }
        }
    }

    pub(crate) fn inspect(self, query: &InspectQuery) -> InspectPage {
        let process = ProcessRecord::current();
        let selected = self
            .table
            .keys
            .iter()
            .filter(|entry| query.selects(entry.key()));
        let reports = selected.map(|entry| {
            let mut report = KeyReport::idle(entry.key().clone());
            report.holders = entry
                .holders()
                .map(|party| record(party, &process))
                .collect();
            report.waiters = entry
                .waiters()
                .map(|party| record(party, &process))
                .collect();
            report
        });
        query.page_of(reports.collect())
    }
}

fn party(request: &Request, fence: Fence) -> Party<Details> {
    Party {
        attempt: request.attempt,
        mode: request.mode,
        priority: request.priority,
        data: Details {
            owner: request.owner,
            label: request.label.clone(),
            record: request.record.clone(),
            since: clock::coarse_wall_time(),
            fence,
            turn: None,
        },
    }
}

fn record(party: &Party<Details>, process: &ProcessRecord) -> PartyRecord {
    let mut record = PartyRecord::new(party.attempt, party.mode, process.clone());
    record.priority = party.priority;
    record.owner = party.data.owner;
    record.label = party.data.label.as_deref().map(str::to_owned);
    record.record = party.data.record.as_deref().map(<[u8]>::to_vec);
    record.since = Some(party.data.since);
    if let Fence::Exclusive(number) = party.data.fence {
        record.fencing = Some(number);
    }
    record
}
