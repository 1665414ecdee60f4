//! What the server remembers: keys, holders, waiters, leases. A state machine without messages.

mod entry;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::clock::Instant;
use lock_core::{
    Change, Fence, FencingNumber, KeyReport, LockKey, Mode, OwnerToken, ReadVersion, Refusal,
};

use super::plant::Plant;
use super::wire::{Answer, Application, Ask, ClientId, Granted, Push};
use entry::{Entry, Member, Standing};

/// 2024-01-01 in Unix seconds: where fencing bases count from.
const EPOCH: Duration = Duration::from_secs(1_704_067_200);

#[derive(Debug)]
pub(super) struct Store {
    keys: HashMap<LockKey, Entry>,
    /// When to look at whom. An alarm whose time was moved on is void.
    alarms: BinaryHeap<Reverse<(Instant, OwnerToken, LockKey)>>,
    /// The highest fencing base given.
    highest: u64,
    /// How far the server's wall clock was turned, in microseconds.
    pub(super) clock_turned: i64,
    offer_life: Duration,
    waiter_life: Duration,
    plant: Option<Plant>,
    pushes: Vec<(ClientId, Push)>,
}

impl Store {
    pub(super) fn new(offer_life: Duration, waiter_life: Duration, plant: Option<Plant>) -> Self {
        Self {
            keys: HashMap::new(),
            alarms: BinaryHeap::new(),
            highest: 0,
            clock_turned: 0,
            offer_life,
            waiter_life,
            plant,
            pushes: Vec::new(),
        }
    }

    /// Forgets all data. The clock goes on.
    pub(super) fn wipe(&mut self) {
        let turned = self.clock_turned;
        *self = Self::new(self.offer_life, self.waiter_life, self.plant);
        self.clock_turned = turned;
    }

    /// What was pushed since the last time.
    pub(super) fn take_pushes(&mut self) -> Vec<(ClientId, Push)> {
        std::mem::take(&mut self.pushes)
    }

    pub(super) fn answer(&mut self, client: ClientId, ask: Ask) -> Answer {
        self.expire_due();
        match ask {
            Ask::Hello => Answer::Welcome,
            Ask::Acquire {
                key,
                application,
                may_queue,
            } => self.acquire(client, &key, *application, may_queue),
            Ask::Claim { key, attempt } => self.claim(client, &key, attempt),
            Ask::Renew(batch) => Answer::Renewed(
                batch
                    .iter()
                    .map(|(key, lease, ttl)| self.renew(client, key, *lease, *ttl))
                    .collect(),
            ),
            Ask::Release { key, attempt } => Answer::Released(self.release(&key, attempt)),
            Ask::Cancel { key, attempt } => {
                self.end(&key, attempt);
                Answer::Cancelled
            }
            Ask::Alter {
                key,
                attempt,
                change,
            } => self.alter(client, &key, attempt, change),
            Ask::AcquireMany(wanted) => self.acquire_many(client, wanted),
            Ask::Inspect(query) => Answer::Reports(
                self.reports()
                    .into_iter()
                    .filter(|report| query.selects(&report.key))
                    .collect(),
            ),
            Ask::Break { key, attempt } => Answer::Broken(self.break_holders(&key, attempt)),
        }
    }

    fn acquire(
        &mut self,
        client: ClientId,
        key: &LockKey,
        application: Application,
        may_queue: bool,
    ) -> Answer {
        let attempt = application.record.attempt;
        if let Some(member) = self.member(key, attempt) {
            let standing = member.standing;
            return match standing {
                // The attempt's own phantom: asked again once the delay is over.
                Standing::Closing if !may_queue => Answer::Contended,
                Standing::Closing => Answer::Queued,
                Standing::Waiting => {
                    member.client = client;
                    self.live_until(key, attempt, self.waiter_life);
                    Answer::Queued
                }
                Standing::Offered | Standing::Held
                    if self.plant == Some(Plant::AcquireNotIdempotent) =>
                {
                    if may_queue {
                        Answer::Queued
                    } else {
                        Answer::Contended
                    }
                }
                Standing::Offered | Standing::Held => self.hold(client, key, attempt),
            };
        }
        let entry = self.keys.entry(key.clone()).or_default();
        let (mode, priority) = (application.record.mode, application.record.priority);
        let admitted = entry.queue.admits(mode, priority);
        match admitted {
            Ok(()) => {
                entry.enter(client, application);
                self.mint(key, attempt);
                self.hold(client, key, attempt)
            }
            Err(Refusal::Conflict(other)) => Answer::Conflict(other),
            Err(Refusal::Contended) if may_queue => {
                entry.enqueue(client, application);
                self.live_until(key, attempt, self.waiter_life);
                Answer::Queued
            }
            Err(Refusal::Contended) => Answer::Contended,
        }
    }

    fn claim(&mut self, client: ClientId, key: &LockKey, attempt: OwnerToken) -> Answer {
        match self.member(key, attempt).map(|member| member.standing) {
            Some(Standing::Offered | Standing::Held) => self.hold(client, key, attempt),
            None if self.plant == Some(Plant::LapsedOfferGranted) => {
                let base = self.next_base();
                FencingNumber::from_base(base).map_or(Answer::Gone, |number| {
                    Answer::Granted(Granted {
                        fence: Fence::Exclusive(number),
                        ttl: self.offer_life * 10,
                    })
                })
            }
            _ => Answer::Gone,
        }
    }

    fn renew(
        &mut self,
        client: ClientId,
        key: &LockKey,
        attempt: OwnerToken,
        ttl: Duration,
    ) -> bool {
        if let Some(member) = self.member(key, attempt) {
            if member.standing != Standing::Held {
                return false;
            }
            member.ttl = ttl;
            self.live_until(key, attempt, ttl);
            return true;
        }
        if self.plant == Some(Plant::RenewalRecreates) {
            let mut record = lock_core::PartyRecord::new(
                attempt,
                Mode::Exclusive,
                lock_core::ProcessRecord::default(),
            );
            record.label = Some("re-created".into());
            let application = Application {
                record,
                ttl,
                lock_delay: None,
            };
            let answer = self.acquire(client, key, application, false);
            return matches!(answer, Answer::Granted(_));
        }
        false
    }

    fn release(&mut self, key: &LockKey, attempt: OwnerToken) -> bool {
        let held = self.member(key, attempt).map(|member| member.standing);
        if held.is_none() && self.plant == Some(Plant::ReleaseWithoutOwnerCheck) {
            let other = self.keys.get(key).and_then(Entry::any_holder);
            other.is_some_and(|other| self.end(key, other))
        } else {
            self.end(key, attempt) && held == Some(Standing::Held)
        }
    }

    /// Ends an attempt in any state, and offers the key to the next ones. A closing key stays closed.
    fn end(&mut self, key: &LockKey, attempt: OwnerToken) -> bool {
        let known = self.member(key, attempt);
        if known.is_none_or(|member| member.standing == Standing::Closing) {
            return false;
        }
        self.remove(key, attempt);
        true
    }

    fn remove(&mut self, key: &LockKey, attempt: OwnerToken) {
        let Some(entry) = self.keys.get_mut(key) else {
            return;
        };
        let next = entry.leave(attempt);
        self.offer(key, &next);
        if self
            .keys
            .get(key)
            .is_some_and(|entry| entry.queue.is_idle())
        {
            self.keys.remove(key);
        }
    }

    fn alter(
        &mut self,
        client: ClientId,
        key: &LockKey,
        attempt: OwnerToken,
        change: Change,
    ) -> Answer {
        let Some(member) = self
            .member(key, attempt)
            .filter(|member| member.standing == Standing::Held)
        else {
            return Answer::Gone;
        };
        match change {
            Change::Transfer(owner) => member.record.owner = Some(owner),
            Change::Attach { .. } | Change::Detach => {
                member.client = client;
                let ttl = member.ttl;
                self.live_until(key, attempt, ttl);
            }
            Change::Downgrade if member.record.mode == Mode::Shared => {}
            Change::Downgrade => {
                let Some(entry) = self.keys.get_mut(key) else {
                    return Answer::Gone;
                };
                match entry.downgrade(attempt) {
                    Ok(next) => self.offer(key, &next),
                    Err(other) => return Answer::Conflict(other),
                }
            }
            _ => return Answer::Gone,
        }
        self.granted(key, attempt)
    }

    fn acquire_many(&mut self, client: ClientId, wanted: Vec<(LockKey, Application)>) -> Answer {
        let mut seen = std::collections::HashSet::new();
        for (key, application) in &wanted {
            let attempt = application.record.attempt;
            let held = self
                .member(key, attempt)
                .is_some_and(|member| member.standing == Standing::Held);
            let entry = self.keys.entry(key.clone()).or_default();
            let admitted = entry
                .queue
                .admits(application.record.mode, application.record.priority);
            let idle = entry.queue.is_idle();
            if idle {
                self.keys.remove(key);
            }
            match admitted {
                Err(Refusal::Conflict(other)) if !held => return Answer::Conflict(other),
                Err(Refusal::Contended) if !held => return Answer::Contended,
                _ if !seen.insert(key.clone()) => return Answer::Contended,
                _ => {}
            }
        }
        let mut granted = Vec::new();
        for (key, application) in wanted {
            match self.acquire(client, &key, application, false) {
                Answer::Granted(grant) => granted.push(grant),
                other => return other,
            }
        }
        Answer::GrantedMany(granted)
    }

    pub(super) fn break_holders(&mut self, key: &LockKey, attempt: Option<OwnerToken>) -> usize {
        let Some(entry) = self.keys.get(key) else {
            return 0;
        };
        let broken: Vec<(OwnerToken, ClientId)> = entry
            .holders()
            .filter(|(holder, _)| attempt.is_none_or(|wanted| wanted == *holder))
            .map(|(holder, member)| (holder, member.client))
            .collect();
        for (holder, client) in &broken {
            self.pushes.push((*client, Push::Loss { attempt: *holder }));
            self.lose(key, *holder);
        }
        broken.len()
    }

    /// Ends a lease without its holder: at once, or after its lock delay.
    fn lose(&mut self, key: &LockKey, attempt: OwnerToken) {
        let delay = self.member(key, attempt).and_then(|member| {
            let delay = member.lock_delay?;
            (member.standing == Standing::Held).then(|| {
                member.standing = Standing::Closing;
                delay
            })
        });
        match delay {
            Some(delay) => self.live_until(key, attempt, delay),
            None => self.remove(key, attempt),
        }
    }

    /// Lets a lease end now, as if nobody had renewed it. The holder is not told.
    pub(super) fn expire(&mut self, attempt: OwnerToken) -> bool {
        let found = self
            .keys
            .iter()
            .find(|(_, entry)| entry.members.contains_key(&attempt))
            .map(|(key, _)| key.clone());
        if let Some(key) = &found {
            self.lose(key, attempt);
        }
        found.is_some()
    }

    /// Ends all whose time is over, and says when the next one's is.
    pub(super) fn expire_due(&mut self) -> Option<Instant> {
        loop {
            let Reverse((at, attempt, key)) = self.alarms.peek()?.clone();
            if !at.has_passed() {
                return Some(at);
            }
            self.alarms.pop();
            let due = self
                .member(&key, attempt)
                .filter(|member| member.until.has_passed())
                .map(|member| member.standing);
            match due {
                Some(Standing::Held) => self.lose(&key, attempt),
                Some(Standing::Offered) if self.plant == Some(Plant::OffersNeverLapse) => {}
                Some(_) => self.remove(&key, attempt),
                None => {}
            }
        }
    }

    /// When a lease ends at the server.
    pub(super) fn lease_end(&self, attempt: OwnerToken) -> Option<Instant> {
        self.keys
            .values()
            .find_map(|entry| entry.members.get(&attempt))
            .filter(|member| member.standing == Standing::Held)
            .map(|member| member.until)
    }

    /// Everything that is stored, also what no report shows.
    pub(super) fn stored(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .keys
            .iter()
            .flat_map(|(key, entry)| {
                entry.members.iter().map(move |(attempt, member)| {
                    format!("{} {attempt} {:?}", key.qualified(), member.standing)
                })
            })
            .collect();
        lines.sort();
        lines
    }

    pub(super) fn reports(&self) -> Vec<KeyReport> {
        self.keys
            .iter()
            .map(|(key, entry)| entry.report(key))
            .collect()
    }

    /// Turns a grant or an offer into a lease that counts from now.
    fn hold(&mut self, client: ClientId, key: &LockKey, attempt: OwnerToken) -> Answer {
        if let Some(member) = self.member(key, attempt) {
            member.standing = Standing::Held;
            member.client = client;
            let ttl = member.ttl;
            self.live_until(key, attempt, ttl);
        }
        self.granted(key, attempt)
    }

    fn granted(&mut self, key: &LockKey, attempt: OwnerToken) -> Answer {
        self.member(key, attempt).map_or(Answer::Gone, |member| {
            Answer::Granted(Granted {
                fence: member.fence,
                ttl: member.ttl,
            })
        })
    }

    fn offer(&mut self, key: &LockKey, next: &[OwnerToken]) {
        for attempt in next {
            self.mint(key, *attempt);
            if let Some(member) = self.member(key, *attempt) {
                member.standing = Standing::Offered;
                let client = member.client;
                let (key, attempt) = (key.clone(), *attempt);
                self.live_until(&key, attempt, self.offer_life);
                self.pushes.push((client, Push::Offer { key, attempt }));
            }
        }
    }

    /// Gives a new holder its fence.
    fn mint(&mut self, key: &LockKey, attempt: OwnerToken) {
        let exclusive = self
            .member(key, attempt)
            .is_some_and(|member| member.record.mode == Mode::Exclusive);
        let number = exclusive
            .then(|| self.next_base())
            .and_then(FencingNumber::from_base);
        let Some(entry) = self.keys.get_mut(key) else {
            return;
        };
        if number.is_some() {
            entry.version = number;
        }
        let version = entry.version.map(ReadVersion);
        let slots = entry.free_slots(attempt);
        let Some(member) = entry.members.get_mut(&attempt) else {
            return;
        };
        member.record.fencing = number;
        member.record.since = Some(SystemTime::now());
        member.fence = match (number, slots.first()) {
            (Some(number), _) => Fence::Exclusive(number),
            (None, Some(slot)) => Fence::Permit(*slot),
            (None, None) => Fence::Shared(version),
        };
        member.slots = slots;
    }

    /// Microseconds of the server's clock, but always more than before.
    fn next_base(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH + EPOCH);
        let now = u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let now = now.saturating_add_signed(self.clock_turned);
        self.highest = match self.plant {
            Some(Plant::FenceResetsOnRestart) => self.highest + 1,
            Some(Plant::FenceFollowsClock) => now,
            _ => now.max(self.highest + 1),
        };
        self.highest
    }

    fn live_until(&mut self, key: &LockKey, attempt: OwnerToken, life: Duration) {
        let until = Instant::now() + life;
        if let Some(member) = self.member(key, attempt) {
            member.until = until;
            self.alarms.push(Reverse((until, attempt, key.clone())));
        }
    }

    fn member(&mut self, key: &LockKey, attempt: OwnerToken) -> Option<&mut Member> {
        self.keys.get_mut(key)?.members.get_mut(&attempt)
    }
}
