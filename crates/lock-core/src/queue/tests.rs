use super::lane::Lane;
use super::*;
use crate::OwnerToken;

fn party(mode: Mode, priority: i8) -> Party<u32> {
    Party {
        attempt: OwnerToken::mint(),
        mode,
        priority,
        data: 0,
    }
}

/// Enters or queues; returns the attempt and whether it holds.
fn ask(queue: &mut KeyQueue<u32>, mode: Mode, priority: i8) -> (OwnerToken, bool) {
    let party = party(mode, priority);
    let attempt = party.attempt;
    match queue.admits(mode, priority) {
        Ok(()) => {
            queue.enter(party);
            (attempt, true)
        }
        Err(Refusal::Contended) => {
            queue.enqueue(party);
            (attempt, false)
        }
        Err(conflict) => panic!("{conflict:?}"),
    }
}

fn leave(queue: &mut KeyQueue<u32>, attempt: OwnerToken) -> Vec<OwnerToken> {
    let mut granted = Vec::new();
    assert!(
        queue
            .leave(attempt, |party| granted.push(party.attempt))
            .is_some()
    );
    granted
}

#[test]
fn first_come_first_served_within_a_priority_and_higher_goes_first() {
    let mut queue = KeyQueue::new();
    let (first, held) = ask(&mut queue, Mode::Exclusive, 0);
    assert!(held);
    let (low_a, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (low_b, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (high, _) = ask(&mut queue, Mode::Exclusive, 5);
    assert_eq!(leave(&mut queue, first), [high]);
    assert_eq!(leave(&mut queue, high), [low_a]);
    assert_eq!(leave(&mut queue, low_a), [low_b]);
    assert!(leave(&mut queue, low_b).is_empty() && queue.is_idle());
}

#[test]
fn a_waiting_exclusive_holds_back_shared_ones_until_it_leaves() {
    let mut queue = KeyQueue::new();
    let (reader, _) = ask(&mut queue, Mode::Shared, 0);
    assert!(ask(&mut queue, Mode::Shared, 0).1);
    let (writer, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (late_a, held) = ask(&mut queue, Mode::Shared, 0);
    let (late_b, _) = ask(&mut queue, Mode::Shared, 0);
    assert!(!held);
    assert!(leave(&mut queue, reader).is_empty());
    assert_eq!(leave(&mut queue, writer), [late_a, late_b]);
}

#[test]
fn permits_are_never_exceeded_and_a_big_waiter_is_not_starved() {
    let mut queue = KeyQueue::new();
    let of_three = |count| Mode::permits(count, 3).unwrap();
    let (one, _) = ask(&mut queue, of_three(1), 0);
    let (two, _) = ask(&mut queue, of_three(1), 0);
    let (big, held) = ask(&mut queue, of_three(3), 0);
    assert!(!held);
    let (small, held) = ask(&mut queue, of_three(1), 0);
    assert!(!held, "one permit is free, but the big waiter came first");
    assert!(leave(&mut queue, one).is_empty());
    assert_eq!(leave(&mut queue, two), [big]);
    assert_eq!(leave(&mut queue, big), [small]);
}

#[test]
fn disciplines_do_not_mix_while_anyone_holds_or_waits() {
    let mut queue = KeyQueue::new();
    let (writer, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (permit, _) = ask(&mut queue, Mode::permit(2).unwrap(), 0);
    assert_eq!(
        queue.admits(Mode::Shared, 0),
        Err(Refusal::Conflict(Mode::permit(2).unwrap())),
    );
    assert!(matches!(
        queue.admits(Mode::permit(3).unwrap(), 0),
        Err(Refusal::Conflict(_))
    ));
    assert_eq!(
        queue.downgrade(writer, |_| ()),
        Err(Mode::permit(2).unwrap())
    );
    leave(&mut queue, permit);
    assert_eq!(queue.downgrade(writer, |_| ()), Ok(Some(())));
    assert_eq!(queue.admits(Mode::Shared, 0), Ok(()));
}

#[test]
fn a_downgrade_lets_in_the_shared_ones_at_the_head() {
    let mut queue = KeyQueue::new();
    let (writer, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (reader, _) = ask(&mut queue, Mode::Shared, 0);
    let (next_writer, _) = ask(&mut queue, Mode::Exclusive, 0);
    let mut granted = Vec::new();
    queue
        .downgrade(writer, |party| granted.push(party.attempt))
        .unwrap()
        .unwrap();
    assert_eq!(granted, [reader]);
    leave(&mut queue, writer);
    assert_eq!(leave(&mut queue, reader), [next_writer]);
}

#[test]
fn a_waiter_bypassed_64_times_is_next() {
    let mut queue = KeyQueue::new();
    let (mut holder, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (patient, _) = ask(&mut queue, Mode::Exclusive, 0);
    for round in 0..BYPASS_LIMIT {
        let (pusher, _) = ask(&mut queue, Mode::Exclusive, 1);
        assert_eq!(leave(&mut queue, holder), [pusher], "round {round}");
        holder = pusher;
    }
    ask(&mut queue, Mode::Exclusive, 1);
    assert_eq!(leave(&mut queue, holder), [patient]);
}

#[test]
fn being_bypassed_counts_for_one_waiter_only() {
    /// Somebody of higher priority comes and is next.
    fn bypass(queue: &mut KeyQueue<u32>, holder: OwnerToken) -> OwnerToken {
        let (pusher, _) = ask(queue, Mode::Exclusive, 1);
        assert_eq!(leave(queue, holder), [pusher]);
        pusher
    }
    for is_granted in [false, true] {
        let mut queue = KeyQueue::new();
        let (mut holder, _) = ask(&mut queue, Mode::Exclusive, 0);
        let (first, _) = ask(&mut queue, Mode::Exclusive, 0);
        let (second, _) = ask(&mut queue, Mode::Exclusive, 0);
        for _ in 1..BYPASS_LIMIT {
            holder = bypass(&mut queue, holder);
        }
        if is_granted {
            assert_eq!(leave(&mut queue, holder), [first]);
            holder = first;
        } else {
            assert!(queue.withdraw(first).is_some());
        }
        for _ in 0..BYPASS_LIMIT {
            holder = bypass(&mut queue, holder);
        }
        ask(&mut queue, Mode::Exclusive, 1);
        assert_eq!(leave(&mut queue, holder), [second]);
    }
}

#[test]
fn nobody_is_bypassed_by_who_came_before() {
    let mut queue = KeyQueue::new();
    let (mut holder, _) = ask(&mut queue, Mode::Exclusive, 0);
    let (gone, _) = ask(&mut queue, Mode::Exclusive, 0);
    assert!(queue.withdraw(gone).is_some());
    for _ in 0..BYPASS_LIMIT {
        leave(&mut queue, holder);
        (holder, _) = ask(&mut queue, Mode::Exclusive, 1);
    }
    ask(&mut queue, Mode::Exclusive, 0);
    for _ in 0..2 {
        let (pusher, _) = ask(&mut queue, Mode::Exclusive, 1);
        assert_eq!(leave(&mut queue, holder), [pusher]);
        holder = pusher;
    }
}

#[test]
fn a_ticket_finds_a_waiter_that_has_moved_to_the_front() {
    let mut queue = KeyQueue::new();
    let (mut holder, _) = ask(&mut queue, Mode::Exclusive, 0);
    let patient = party(Mode::Exclusive, 0);
    let attempt = patient.attempt;
    let ticket = queue.enqueue(patient);
    for _ in 0..BYPASS_LIMIT {
        let (pusher, _) = ask(&mut queue, Mode::Exclusive, 1);
        leave(&mut queue, holder);
        holder = pusher;
    }
    let (other, _) = ask(&mut queue, Mode::Exclusive, 0);
    let gone = queue
        .withdraw_with(ticket, attempt)
        .map(|gone| gone.attempt);
    assert_eq!(gone, Some(attempt));
    assert!(
        queue.withdraw_with(ticket, attempt).is_none(),
        "it has left"
    );
    assert_eq!(leave(&mut queue, holder), [other]);
}

#[test]
fn random_runs_agree_with_the_rules() {
    use proptest::prelude::*;
    let mode = prop_oneof![
        Just(Mode::Exclusive),
        Just(Mode::Shared),
        (1..=3_u32).prop_map(|count| Mode::permits(count, 3).unwrap()),
    ];
    let step = prop_oneof![
        (mode, -1..=1_i8).prop_map(|(mode, priority)| Some((mode, priority))),
        Just(None),
        Just(None),
    ];
    proptest!(ProptestConfig::with_cases(400), |(steps in prop::collection::vec((step, any::<prop::sample::Index>()), 1..80))| {
        let mut queue = KeyQueue::new();
        let mut alive: Vec<(OwnerToken, Option<Ticket>)> = Vec::new();
        for (step, pick) in steps {
            match step {
                Some((mode, priority)) => {
                    let party = party(mode, priority);
                    let attempt = party.attempt;
                    let ticket = match queue.admits(mode, priority) {
                        Ok(()) => {
                            queue.enter(party);
                            None
                        }
                        Err(Refusal::Contended) => Some(queue.enqueue(party)),
                        Err(Refusal::Conflict(_)) => continue,
                    };
                    alive.push((attempt, ticket));
                }
                None if alive.is_empty() => continue,
                None => {
                    let (attempt, ticket) = alive.swap_remove(pick.index(alive.len()));
                    // Whoever has a ticket may hold by now, or show it or not.
                    let shown = ticket.filter(|_| attempt.counter().is_multiple_of(2));
                    let gone = match shown {
                        Some(ticket) => queue.withdraw_with(ticket, attempt),
                        None => queue.withdraw(attempt),
                    };
                    prop_assert_eq!(gone.map(|gone| gone.attempt), Some(attempt));
                    queue.admit_heads(|_| Turn::Enter);
                    prop_assert!(queue.leave(attempt, |_| ()).is_none(), "leaving is idempotent");
                    if let Some(ticket) = ticket {
                        prop_assert!(queue.withdraw_with(ticket, attempt).is_none());
                    }
                }
            }
            check(&queue, alive.len())?;
        }
        for (attempt, _) in alive {
            queue.leave(attempt, |_| ());
        }
        prop_assert!(queue.is_idle());
    });
}

fn check(queue: &KeyQueue<u32>, alive: usize) -> Result<(), proptest::test_runner::TestCaseError> {
    use proptest::prelude::*;
    let held: Vec<Mode> = queue.holders().map(|holder| holder.mode).collect();
    let waiting = queue.waiters().count();
    prop_assert_eq!(held.len() + waiting, alive, "everyone holds or waits");
    prop_assert!(
        waiting == 0 || !held.is_empty(),
        "nobody waits for a free key"
    );
    if held.contains(&Mode::Exclusive) {
        prop_assert_eq!(held.len(), 1);
    }
    let used: u32 = held.iter().map(|mode| permits(*mode)).sum();
    prop_assert!(used <= 3, "permits exceeded");
    let shared = held.contains(&Mode::Shared);
    prop_assert!(!(shared && used > 0), "disciplines mixed");
    Ok(())
}

#[test]
fn a_head_enters_only_when_the_outside_lets_it() {
    let mut queue = KeyQueue::new();
    // Nobody holds, but something outside is in the way.
    let first = party(Mode::Exclusive, 0);
    let second = party(Mode::Exclusive, 0);
    let (a, b) = (first.attempt, second.attempt);
    queue.enqueue(first);
    queue.enqueue(second);
    assert_eq!(
        queue.admits(Mode::Shared, 0),
        Err(Refusal::Contended),
        "nobody overtakes a head that waits for the outside"
    );
    queue.admit_heads(|_| Turn::Stay);
    assert_eq!(queue.holders().count(), 0);
    let mut asked = Vec::new();
    queue.admit_heads(|head| {
        asked.push(head.attempt);
        if head.attempt == a {
            Turn::Leave
        } else {
            Turn::Enter
        }
    });
    assert_eq!(asked, [a, b]);
    assert!(queue.waiter(a).is_none() && queue.holder_mut(b).is_some());
    assert!(queue.withdraw(b).is_some() && queue.is_idle());
}

#[test]
fn a_lane_agrees_with_a_sorted_map() {
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    #[derive(Clone, Debug)]
    enum Step {
        /// So much later than the last one.
        Come(u64),
        /// As one does that was bypassed too often in another lane: among those who came earlier.
        ComeLate(u64),
        Pop,
        Remove(prop::sample::Index),
        RemoveRow(prop::sample::Index),
    }
    let step = prop_oneof![
        6 => (1..3_u64).prop_map(Step::Come),
        1 => (1..100_u64).prop_map(Step::Come),
        1 => (1..200_u64).prop_map(Step::ComeLate),
        2 => Just(Step::Pop),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any::<prop::sample::Index>().prop_map(Step::RemoveRow),
    ];
    proptest!(ProptestConfig::with_cases(400), |(steps in prop::collection::vec(step, 1..400))| {
        let (mut lane, mut model) = (Lane::new(0), BTreeMap::new());
        let mut last = 0;
        for step in steps {
            match step {
                Step::Come(later) => {
                    last += later;
                    lane.insert(last, last);
                    model.insert(last, last);
                }
                Step::ComeLate(earlier) => {
                    let arrival = last.saturating_sub(earlier);
                    if model.insert(arrival, arrival).is_none() {
                        lane.insert(arrival, arrival);
                    }
                }
                Step::Pop => prop_assert_eq!(lane.pop(), model.pop_first()),
                Step::Remove(index) | Step::RemoveRow(index) if model.is_empty() => {
                    prop_assert_eq!(lane.remove(index.index(400) as u64, |_| true), None);
                }
                Step::Remove(index) => {
                    let arrival = *model.keys().nth(index.index(model.len())).unwrap();
                    prop_assert_eq!(lane.remove(arrival, |party| *party != arrival), None);
                    prop_assert_eq!(lane.remove(arrival, |_| true), model.remove(&arrival));
                }
                Step::RemoveRow(index) => {
                    let from = *model.keys().nth(index.index(model.len())).unwrap();
                    for arrival in from..from + 80 {
                        prop_assert_eq!(lane.remove(arrival, |_| true), model.remove(&arrival));
                    }
                }
            }
            prop_assert_eq!(lane.is_empty(), model.is_empty());
            prop_assert_eq!(lane.first(), model.first_key_value().map(|(_, party)| party));
            prop_assert_eq!(lane.get(last), model.get(&last));
            let pairs: Vec<_> = lane.arrivals().map(|(arrival, party)| (arrival, *party)).collect();
            prop_assert!(pairs.into_iter().eq(model.clone()));
        }
        prop_assert!(lane.into_parties().eq(model.into_values()));
    });
}
