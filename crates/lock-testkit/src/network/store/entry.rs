//! One key in the store.

use std::collections::HashMap;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Fence, FencingNumber, KeyQueue, KeyReport, LockKey, Mode, OwnerToken, Party, PartyRecord, Slot,
};

use crate::network::wire::{Application, ClientId};

/// The queue knows the order, `members` everything else. Invariant: both have the same attempts.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) queue: KeyQueue<()>,
    pub(super) members: HashMap<OwnerToken, Member>,
    /// The number of the last exclusive grant.
    pub(super) version: Option<FencingNumber>,
}

/// One attempt that holds or waits.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: ClientId,
    pub(super) record: PartyRecord,
    pub(super) ttl: Duration,
    pub(super) lock_delay: Option<Duration>,
    pub(super) standing: Standing,
    /// When this standing ends by itself.
    pub(super) until: Instant,
    pub(super) fence: Fence,
    /// The permits it has.
    pub(super) slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Queued, and has to be heard of now and then.
    Waiting,
    /// In the queue's eyes a holder; to be claimed.
    Offered,
    Held,
    /// Lost uncleanly; the queue still sees a holder, so that the key stays closed.
    Closing,
}

impl Entry {
    /// Makes a party a holder, which has to be given its fence.
    pub(super) fn enter(&mut self, client: ClientId, application: Application) {
        self.queue.enter(party(&application.record));
        self.add(client, application, Standing::Offered);
    }

    pub(super) fn enqueue(&mut self, client: ClientId, application: Application) {
        self.queue.enqueue(party(&application.record));
        self.add(client, application, Standing::Waiting);
    }

    fn add(&mut self, client: ClientId, application: Application, standing: Standing) {
        let member = Member {
            client,
            ttl: application.ttl,
            lock_delay: application.lock_delay,
            standing,
            until: Instant::now(),
            fence: Fence::Shared(None),
            slots: Vec::new(),
            record: application.record,
        };
        self.members.insert(member.record.attempt, member);
    }

    /// Ends an attempt; returns who comes next.
    pub(super) fn leave(&mut self, attempt: OwnerToken) -> Vec<OwnerToken> {
        let mut next = Vec::new();
        self.queue.leave(attempt, |party| next.push(party.attempt));
        self.members.remove(&attempt);
        next
    }

    /// Makes an exclusive holder a shared one; returns who joins it.
    pub(super) fn downgrade(&mut self, attempt: OwnerToken) -> Result<Vec<OwnerToken>, Mode> {
        let mut next = Vec::new();
        self.queue
            .downgrade(attempt, |party| next.push(party.attempt))?;
        if let Some(member) = self.members.get_mut(&attempt) {
            member.record.mode = Mode::Shared;
            member.record.fencing = None;
            member.fence = Fence::Shared(self.version.map(lock_core::ReadVersion));
        }
        Ok(next)
    }

    /// Who holds or is offered the key.
    pub(super) fn holders(&self) -> impl Iterator<Item = (OwnerToken, &Member)> {
        self.queue.holders().filter_map(|party| {
            let member = self.members.get(&party.attempt)?;
            (member.standing != Standing::Closing).then_some((party.attempt, member))
        })
    }

    pub(super) fn any_holder(&self) -> Option<OwnerToken> {
        self.holders().next().map(|(attempt, _)| attempt)
    }

    /// The lowest permits that nobody has, as many as the attempt asked for.
    pub(super) fn free_slots(&self, attempt: OwnerToken) -> Vec<Slot> {
        let Some(Mode::Permit(permits)) =
            self.members.get(&attempt).map(|member| member.record.mode)
        else {
            return Vec::new();
        };
        (0..permits.of())
            .map(Slot)
            .filter(|slot| !self.members.values().any(|m| m.slots.contains(slot)))
            .take(permits.count() as usize)
            .collect()
    }

    pub(super) fn report(&self, key: &LockKey) -> KeyReport {
        let mut report = KeyReport::idle(key.clone());
        report.holders = self
            .holders()
            .map(|(_, member)| {
                let mut record = member.record.clone();
                record.remaining = Some(member.until.remaining());
                record
            })
            .collect();
        report.waiters = self
            .queue
            .waiters()
            .filter_map(|party| self.members.get(&party.attempt))
            .map(|member| member.record.clone())
            .collect();
        report
    }
}

fn party(record: &PartyRecord) -> Party<()> {
    Party {
        attempt: record.attempt,
        mode: record.mode,
        priority: record.priority,
        data: (),
    }
}
