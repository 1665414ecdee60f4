use lock_core::{LockKey, Mode, Request, Wait};

use super::*;
use crate::record::{Process, Record};
use crate::wire::{DELETE, Header, KeyValue, RangeResponse};

/// A key that is held shared, and an exclusive waiter of this process.
struct World {
    entry: Entry,
    waiter: OwnerToken,
    news: mpsc::UnboundedReceiver<News>,
    first: KeyValue,
    waits: KeyValue,
}

impl World {
    fn new() -> Self {
        let place = Place::new("locks", &LockKey::new("a").unwrap());
        let entry = Entry::new(&place);
        let (_, first) = record(&place, Mode::Shared, false, 1);
        let (waiter, waits) = record(&place, Mode::Exclusive, true, 2);
        let news = entry.join(waiter);
        Self {
            entry,
            waiter,
            news,
            first,
            waits,
        }
    }

    fn line(&self, revision: i64, kvs: &[&KeyValue]) -> Line {
        let header = Header {
            revision,
            ..Header::default()
        };
        let range = RangeResponse {
            header: Some(header),
            kvs: kvs.iter().copied().cloned().collect(),
            more: false,
        };
        Line::read(&self.entry.place, &range)
    }

    /// Whether waiters of this process are to be let in.
    fn lets_in(&self) -> bool {
        self.entry.look().is_some()
    }
}

/// A record that was made at a revision, and whose it is.
fn record(place: &Place, mode: Mode, waits: bool, revision: i64) -> (OwnerToken, KeyValue) {
    let request = Request::new(OwnerToken::mint(), mode, Wait::Forever);
    let record = Record::new(&place.key, &request, &Process::default());
    let key = match waits {
        true => place.waiter(mode, 0, request.attempt),
        false => place.holder(mode, request.attempt),
    };
    let entry = KeyValue {
        key,
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        value: record.to_bytes(),
        lease: 1,
    };
    (request.attempt, entry)
}

fn deleted(entry: &KeyValue, revision: i64) -> Event {
    let entry = KeyValue {
        mod_revision: revision,
        ..entry.clone()
    };
    Event {
        kind: DELETE,
        entry: Some(entry),
    }
}

#[test]
fn nobody_is_let_in_by_a_line_that_may_miss_a_holder() {
    let world = World::new();
    let (_, second) = record(&world.entry.place, Mode::Shared, false, 3);
    let early = world.line(2, &[&world.first, &world.waits]);
    world.entry.seed(early.clone());
    // Events are told from 4 on: nobody told that a second one had come in beside the first.
    world.entry.follow_from(4);
    world.entry.apply(&deleted(&world.first, 5));
    assert!(!world.lets_in());
    // An answer that was under way for long is of no use.
    world.entry.seed(early);
    assert!(!world.lets_in());
    let whole = world.line(4, &[&world.first, &second, &world.waits]);
    world.entry.seed(whole);
    assert!(!world.lets_in());
    // The control: once the second one has left it is the waiter's turn.
    world.entry.apply(&deleted(&second, 6));
    assert!(world.lets_in());
}

#[test]
fn an_event_that_a_given_up_line_had_is_news_to_the_next() {
    let world = World::new();
    let (_, second) = record(&world.entry.place, Mode::Shared, false, 5);
    let came = Event {
        entry: Some(second.clone()),
        ..Event::default()
    };
    let late = world.line(4, &[&world.first, &world.waits]);
    world
        .entry
        .seed(world.line(5, &[&world.first, &second, &world.waits]));
    world.entry.follow_from(3);
    world.entry.apply(&came);
    world.entry.seed(late);
    world.entry.apply(&deleted(&world.first, 6));
    assert!(!world.lets_in(), "the second holder was forgotten");
    // The control: once that one has left it is the waiter's turn.
    world.entry.apply(&deleted(&second, 7));
    assert!(world.lets_in());
}

#[test]
fn a_waiter_whose_record_was_not_seen_is_not_taken_for_gone() {
    let mut world = World::new();
    let early = world.line(1, &[&world.first]);
    world.entry.seed(early);
    world.entry.queued(world.waiter, 2);
    world.entry.follow_from(3);
    world.entry.apply(&deleted(&world.first, 4));
    assert!(!world.lets_in());
    assert!(world.news.try_recv().is_err());
    // The control: a line that has all of it, and not the record, tells that it is gone.
    let without = world.line(5, &[]);
    world.entry.seed(without);
    assert!(!world.lets_in());
    assert_eq!(world.news.try_recv(), Ok(News::Gone));
}
