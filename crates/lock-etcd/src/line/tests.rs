use lock_core::{LockKey, Mode, OwnerToken, Request, Wait};

use super::*;
use crate::record::Process;
use crate::wire::{Header, KeyValue};

/// A store of one key, as far as a line can tell.
struct Store {
    place: Place,
    revision: i64,
    entries: Vec<KeyValue>,
}

impl Store {
    fn new() -> Self {
        Self {
            place: Place::new("locks", &LockKey::new("a").unwrap()),
            revision: 0,
            entries: Vec::new(),
        }
    }

    fn record(&self, mode: Mode, priority: i8) -> (OwnerToken, Record) {
        let mut request = Request::new(OwnerToken::mint(), mode, Wait::Forever);
        request.priority = priority;
        let record = Record::new(&self.place.key, &request, &Process::default());
        (request.attempt, record)
    }

    fn put(&mut self, key: Vec<u8>, record: &Record) {
        self.revision += 1;
        self.entries.push(KeyValue {
            key,
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            value: record.to_bytes(),
            lease: 1,
        });
    }

    fn holds(&mut self, mode: Mode) -> OwnerToken {
        let slots = self.line().admits(mode, 127).unwrap_or_default();
        let (attempt, record) = self.record(mode, 0);
        self.put(self.place.holder(mode, attempt), &record.holding(slots));
        attempt
    }

    fn waits(&mut self, mode: Mode, priority: i8) -> OwnerToken {
        self.waits_bypassed(mode, priority, 0)
    }

    fn waits_bypassed(&mut self, mode: Mode, priority: i8, bypassed: u32) -> OwnerToken {
        let (attempt, mut record) = self.record(mode, priority);
        record.bypassed = bypassed;
        self.put(self.place.waiter(mode, priority, attempt), &record);
        attempt
    }

    fn line(&self) -> Line {
        let range = RangeResponse {
            header: Some(Header {
                revision: self.revision,
                ..Header::default()
            }),
            kvs: self.entries.clone(),
            more: false,
        };
        Line::read(&self.place, &range)
    }

    /// Who is let in when this holder leaves.
    fn after(&self, leaving: OwnerToken) -> Vec<OwnerToken> {
        let line = self.line();
        let holder = line.holder(leaving).unwrap();
        let stand = Stand {
            attempt: leaving,
            mode: holder.mode,
            created: holder.created,
        };
        let plan = line.leave(&stand).unwrap();
        plan.lets_in
            .into_iter()
            .map(|(attempt, _)| attempt)
            .collect()
    }
}

#[test]
fn priority_goes_before_arrival_and_age_before_priority() {
    let mut store = Store::new();
    let holder = store.holds(Mode::Exclusive);
    let low = store.waits(Mode::Exclusive, -1);
    let high = store.waits(Mode::Exclusive, 1);
    assert_eq!(store.after(holder), [high]);
    let aged = store.waits_bypassed(Mode::Exclusive, -5, BYPASS_LIMIT);
    assert_eq!(store.after(holder), [aged]);
    let order: Vec<_> = store.line().waiters().map(|party| party.attempt).collect();
    assert_eq!(order, [aged, high, low]);
}

#[test]
fn shared_ones_come_in_together_up_to_the_next_exclusive() {
    let mut store = Store::new();
    let holder = store.holds(Mode::Exclusive);
    let first = store.waits(Mode::Shared, 0);
    let second = store.waits(Mode::Shared, 0);
    store.waits(Mode::Exclusive, 0);
    store.waits(Mode::Shared, 0);
    assert_eq!(store.after(holder), [first, second]);
}

#[test]
fn nobody_enters_beside_others_who_hold() {
    let mut store = Store::new();
    let leaving = store.holds(Mode::Shared);
    store.holds(Mode::Shared);
    store.waits(Mode::Exclusive, 0);
    assert_eq!(store.after(leaving), []);
    assert_eq!(store.line().admits(Mode::Shared, 0), None);
    // Past the queue only with a higher priority than its head.
    assert!(store.line().admits(Mode::Shared, 1).is_some());
}

#[test]
fn permits_have_distinct_slots_up_to_the_maximum() {
    let (one, two) = (Mode::permit(3).unwrap(), Mode::permits(2, 3).unwrap());
    let mut store = Store::new();
    store.holds(one);
    assert_eq!(store.line().admits(two, 0), Some(vec![1, 2]));
    store.holds(one);
    assert_eq!(store.line().admits(two, 0), None);
    assert_eq!(store.line().admits(one, 0), Some(vec![2]));
}

#[test]
fn whoever_is_overtaken_is_counted_once_for_each_rank() {
    let mut store = Store::new();
    let holder = store.holds(Mode::Exclusive);
    let oldest = store.waits(Mode::Exclusive, 0);
    store.waits(Mode::Exclusive, 0);
    store.waits(Mode::Exclusive, 1);
    let line = store.line();
    let leaving = line.holder(holder).unwrap();
    let txn = line.next(Some(leaving)).plan().txn;
    let rewritten: Vec<_> = txn
        .success
        .iter()
        .filter_map(|operation| match &operation.request {
            Some(crate::wire::Request::Put(put)) => Name::parse(&put.key),
            _ => None,
        })
        .filter(|name| name.role != Role::Holder)
        .map(|name| name.attempt)
        .collect();
    assert_eq!(rewritten, [oldest]);
}

#[test]
fn events_lead_to_the_same_line_as_reading() {
    let mut store = Store::new();
    let mut followed = store.line();
    let holder = store.holds(Mode::Exclusive);
    store.waits(Mode::Exclusive, 0);
    for entry in store.entries.clone() {
        let event = Event {
            kind: 0,
            entry: Some(entry),
        };
        followed.apply(&event);
    }
    assert!(followed.holder(holder).is_some());
    let gone = KeyValue {
        mod_revision: store.revision + 1,
        ..store.entries.remove(0)
    };
    followed.apply(&Event {
        kind: DELETE,
        entry: Some(gone),
    });
    assert!(followed.holder(holder).is_none());
    let left: Vec<_> = followed.waiters().map(|party| party.attempt).collect();
    let read = store.line();
    let expected: Vec<_> = read.waiters().map(|party| party.attempt).collect();
    assert_eq!(left, expected);
}
