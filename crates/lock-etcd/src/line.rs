//! Who holds one key and who waits for it, as the store had it at one revision.
//!
//! A plain state machine: read from the store, moved on by its events, asked who is next. The same
//! records give the same answer in every process, and a transaction checks that they still stand
//! before it acts on one.

mod grants;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use lock_core::{BYPASS_LIMIT, Mode, OwnerToken};

use crate::layout::{Name, NamedMode, Place, Role};
use crate::record::Record;
use crate::wire::{Answered, DELETE, Event, KeyValue, RangeResponse, Request};

pub(crate) use grants::{Entrant, Plan, Stand};

/// Above every priority: where waiters go that were bypassed too often.
const AGED: i16 = i8::MAX as i16 + 1;

/// A holder or a waiter.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) attempt: OwnerToken,
    pub(crate) mode: Mode,
    pub(crate) priority: i8,
    /// The revision at which its record was made: a waiter's arrival, a holder's grant.
    pub(crate) created: i64,
    pub(crate) lease: i64,
    pub(crate) record: Record,
}

/// Higher rank first, then first come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    rank: Reverse<i16>,
    created: i64,
    attempt: OwnerToken,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) place: Place,
    /// What happened up to here is in it.
    pub(crate) revision: i64,
    /// So far nobody became a holder who is not in it: later than `revision` after a transaction of
    /// ours whose events are still on their way.
    holders_at: i64,
    holders: BTreeMap<OwnerToken, Party>,
    waiting: BTreeMap<Turn, Party>,
    turns: HashMap<OwnerToken, Turn>,
}

impl Line {
    pub(crate) fn read(place: &Place, range: &RangeResponse) -> Self {
        let mut line = Self {
            place: place.clone(),
            revision: range.revision(),
            holders_at: range.revision(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: HashMap::new(),
        };
        for entry in &range.kvs {
            line.put(entry);
        }
        line
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        let Some(entry) = &event.entry else {
            return;
        };
        self.revision = self.revision.max(entry.mod_revision);
        self.holders_at = self.holders_at.max(self.revision);
        if event.kind == DELETE {
            self.delete(&entry.key);
        } else {
            self.put(entry);
        }
    }

    /// Takes in a transaction of ours ahead of its events. If it let somebody in, it has checked that
    /// nobody else became a holder until then.
    pub(crate) fn carried_out(&mut self, plan: &Plan, revision: i64) {
        if revision <= self.revision {
            return;
        }
        for operation in &plan.txn.success {
            match &operation.request {
                Some(Request::Put(put)) => self.put(&KeyValue {
                    key: put.key.clone(),
                    create_revision: self.created(&put.key).unwrap_or(revision),
                    mod_revision: revision,
                    version: 1,
                    value: put.value.clone(),
                    lease: put.lease,
                }),
                Some(Request::Delete(delete)) => self.delete(&delete.key),
                _ => {}
            }
        }
        if !plan.lets_in.is_empty() {
            self.holders_at = self.holders_at.max(revision);
        }
    }

    /// When a waiter came that is written again because it was overtaken.
    fn created(&self, key: &[u8]) -> Option<i64> {
        let name = Name::parse(key)?;
        let turn = self.turns.get(&name.attempt)?;
        (name.role != Role::Holder).then_some(turn.created)
    }

    fn put(&mut self, entry: &KeyValue) {
        let Some(name) = Name::parse(&entry.key).filter(|name| name.base == *self.place.base)
        else {
            tracing::warn!(
                key = %String::from_utf8_lossy(&entry.key),
                "a foreign key stands among the locks, ignored"
            );
            return;
        };
        let party = Party::read(&name, entry, &self.place);
        match name.role {
            Role::Holder => {
                self.holders.insert(name.attempt, party);
            }
            Role::Waiter { .. } => {
                self.remove_waiter(name.attempt);
                let turn = Turn::of(&party);
                self.turns.insert(name.attempt, turn);
                self.waiting.insert(turn, party);
            }
        }
    }

    fn delete(&mut self, key: &[u8]) {
        let Some(name) = Name::parse(key).filter(|name| name.base == *self.place.base) else {
            return;
        };
        match name.role {
            Role::Holder => {
                // A downgrade puts the shared record in the same step as it deletes this one.
                let same = |holder: &Party| NamedMode::from(holder.mode) == name.mode;
                if self.holders.get(&name.attempt).is_some_and(same) {
                    self.holders.remove(&name.attempt);
                }
            }
            Role::Waiter { .. } => self.remove_waiter(name.attempt),
        }
    }

    fn remove_waiter(&mut self, attempt: OwnerToken) {
        if let Some(turn) = self.turns.remove(&attempt) {
            self.waiting.remove(&turn);
        }
    }

    pub(crate) fn holder(&self, attempt: OwnerToken) -> Option<&Party> {
        self.holders.get(&attempt)
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = &Party> {
        self.holders.values()
    }

    /// Who waits, next one first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Party> {
        self.waiting.values()
    }

    pub(crate) fn waits(&self, attempt: OwnerToken) -> bool {
        self.turns.contains_key(&attempt)
    }

    /// A mode in use that can never take turns with `mode`.
    pub(crate) fn conflict(&self, mode: Mode, except: OwnerToken) -> Option<Mode> {
        self.holders()
            .chain(self.waiters())
            .filter(|party| party.attempt != except)
            .map(|party| party.mode)
            .find(|other| other.conflicts_with(mode))
    }

    /// The maximum of the permits in use.
    fn permits_of(&self) -> Option<u32> {
        let mut parties = self.holders().chain(self.waiters());
        parties.find_map(|party| match party.mode {
            Mode::Permit(permits) => Some(permits.of()),
            Mode::Exclusive | Mode::Shared => None,
        })
    }

    fn room(&self, leaving: Option<OwnerToken>) -> Room {
        let mut room = Room::default();
        for holder in self.holders() {
            if Some(holder.attempt) != leaving {
                room.enter(holder.mode, &holder.record.slots);
            }
        }
        room
    }
}

/// What the holders leave to others.
#[derive(Clone, Debug, Default)]
struct Room {
    held: Option<Mode>,
    used: u32,
    slots: Vec<u32>,
}

impl Room {
    /// The permits that one may have who enters now; empty for other modes. `None`: no room.
    fn admits(&self, mode: Mode) -> Option<Vec<u32>> {
        let wanted = match (self.held, mode) {
            (None | Some(Mode::Shared), Mode::Shared) | (None, Mode::Exclusive) => {
                return Some(Vec::new());
            }
            (None, Mode::Permit(wanted)) => wanted,
            (Some(Mode::Permit(held)), Mode::Permit(wanted))
                if held.of() == wanted.of() && self.used + wanted.count() <= wanted.of() =>
            {
                wanted
            }
            _ => return None,
        };
        let free = (0..wanted.of()).filter(|slot| !self.slots.contains(slot));
        Some(free.take(wanted.count() as usize).collect())
    }

    fn enter(&mut self, mode: Mode, slots: &[u32]) {
        self.held = Some(mode);
        if let Mode::Permit(permits) = mode {
            self.used += permits.count();
            self.slots.extend(slots);
        }
    }
}

impl Party {
    fn read(name: &Name, entry: &KeyValue, place: &Place) -> Self {
        let record = Record::parse(&entry.value).unwrap_or_else(|| {
            tracing::warn!(key = %place.key, "a record that this version cannot read");
            Record::unreadable(&place.key)
        });
        let mode = match name.mode {
            NamedMode::Exclusive => Mode::Exclusive,
            NamedMode::Shared => Mode::Shared,
            // Of an unreadable record it is only known that it may have all of them.
            NamedMode::Permit { of } => Mode::permits(record.count, of)
                .or_else(|_| Mode::permits(of, of))
                .unwrap_or(Mode::Exclusive),
        };
        let priority = match name.role {
            Role::Holder => record.priority,
            Role::Waiter { priority } => priority,
        };
        Self {
            attempt: name.attempt,
            mode,
            priority,
            created: entry.create_revision,
            lease: entry.lease,
            record,
        }
    }

    fn rank(&self) -> i16 {
        if self.record.bypassed >= BYPASS_LIMIT {
            AGED
        } else {
            self.priority.into()
        }
    }
}

impl Turn {
    fn of(party: &Party) -> Self {
        Self {
            rank: Reverse(party.rank()),
            created: party.created,
            attempt: party.attempt,
        }
    }
}

impl From<Mode> for NamedMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
            Mode::Permit(permits) => Self::Permit { of: permits.of() },
        }
    }
}

#[cfg(test)]
mod tests;
