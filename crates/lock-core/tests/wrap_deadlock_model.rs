//! The graph against the definition of a deadlock, over random histories.

mod common;

use std::collections::HashSet;
use std::task::Poll;

use common::world::{S, World, X, permits};
use common::{key, poll_once};
use lock_core::{Acquire, AcquireOptions, ErrorKind, LockGuard, Mode, OwnerId, block_on};
use proptest::prelude::*;

const OWNERS: usize = 4;
const KEYS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Act {
    Ask {
        owner: usize,
        key: usize,
        mode: Mode,
    },
    /// One of the guards, counted round.
    Release(usize),
    Transfer {
        guard: usize,
        owner: usize,
    },
    Downgrade(usize),
    Cancel(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let mode = prop_oneof![
        3 => Just(X),
        2 => Just(S),
        2 => (1_u32..=3).prop_map(|count| permits(count, 3)),
    ];
    let act = prop_oneof![
        12 => (0..OWNERS, 0..KEYS, mode)
            .prop_map(|(owner, key, mode)| Act::Ask { owner, key, mode }),
        3 => any::<usize>().prop_map(Act::Release),
        2 => (any::<usize>(), 0..OWNERS)
            .prop_map(|(guard, owner)| Act::Transfer { guard, owner }),
        1 => any::<usize>().prop_map(Act::Downgrade),
        1 => any::<usize>().prop_map(Act::Cancel),
    ];
    prop::collection::vec(act, 1..60)
}

/// Who holds and who waits for each key.
type Snapshot = Vec<[Vec<(OwnerId, Mode)>; 2]>;

fn snapshot(world: &World) -> Snapshot {
    let keys = 0..KEYS;
    keys.map(|at| world.memory.parties(&key(format!("k{at}"))))
        .collect()
}

fn fits(wanted: Mode, others: &[Mode]) -> bool {
    let taken = |mode: &Mode| match mode {
        Mode::Permit(permits) => permits.count(),
        _ => 0,
    };
    match wanted {
        Mode::Exclusive => others.is_empty(),
        Mode::Shared => others.iter().all(|mode| *mode == Mode::Shared),
        Mode::Permit(permits) => {
            let used: u32 = others.iter().map(taken).sum();
            others.iter().all(|mode| matches!(mode, Mode::Permit(_)))
                && used + permits.count() <= permits.of()
        }
    }
}

/// Whether two waiters of one queue keep their order.
fn in_order(ahead: Mode, behind: Mode) -> bool {
    !(ahead == Mode::Shared && behind == Mode::Shared)
}

/// By the definition: owners that wait for nothing finish and take all that is theirs away, until
/// nobody more can. Who is left then waits for ever.
fn stuck(snapshot: &Snapshot) -> HashSet<OwnerId> {
    let waiters = |keys: &Snapshot| -> HashSet<OwnerId> {
        let waiters = keys.iter().flat_map(|[_, waiters]| waiters);
        waiters.map(|(owner, _)| *owner).collect()
    };
    let mut left = waiters(snapshot);
    loop {
        let goes_on = left.iter().copied().find(|owner| {
            snapshot.iter().any(|[holders, line]| {
                let holders = holders.iter().filter(|(it, _)| left.contains(it));
                let holders: Vec<Mode> = holders.map(|(_, mode)| *mode).collect();
                line.iter().enumerate().any(|(at, (waiter, mode))| {
                    let mut ahead = line[..at].iter();
                    let free =
                        ahead.all(|(it, other)| !left.contains(it) || !in_order(*other, *mode));
                    waiter == owner && free && fits(*mode, &holders)
                })
            })
        });
        match goes_on {
            Some(owner) => left.remove(&owner),
            None => return left,
        };
    }
}

/// Whether an owner waits for itself over others, starting with its wait for one key.
fn reaches_itself(snapshot: &Snapshot, owner: OwnerId, start: Option<usize>) -> bool {
    let left = stuck(snapshot);
    let mut seen = HashSet::new();
    let mut agenda: Vec<(usize, usize)> = Vec::new();
    let waits_of = |who: OwnerId| {
        let lines = snapshot.iter().enumerate();
        lines.flat_map(move |(key, [_, line])| {
            let waits = line.iter().enumerate();
            waits
                .filter(move |(_, (it, _))| *it == who)
                .map(move |(at, _)| (key, at))
        })
    };
    match start {
        Some(key) => agenda.extend(waits_of(owner).filter(|(at, _)| *at == key).max()),
        None => agenda.extend(waits_of(owner)),
    }
    while let Some((key, at)) = agenda.pop() {
        let [holders, line] = &snapshot[key];
        let mode = line[at].1;
        let shared = |other: Mode| mode == Mode::Shared && other == Mode::Shared;
        let in_the_way = holders.iter().chain(&line[..at]);
        for (next, _) in in_the_way.filter(|(it, other)| left.contains(it) && !shared(*other)) {
            if *next == owner {
                return true;
            }
            if seen.insert(*next) {
                agenda.extend(waits_of(*next));
            }
        }
    }
    false
}

struct History {
    world: World,
    owners: Vec<OwnerId>,
    guards: Vec<LockGuard>,
    waits: Vec<Acquire>,
}

impl History {
    fn new() -> Self {
        Self {
            world: World::new(),
            owners: (0..OWNERS).map(|_| OwnerId::new()).collect(),
            guards: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// Takes what has been granted.
    fn settle(&mut self) {
        for mut wait in std::mem::take(&mut self.waits) {
            match poll_once(&mut wait) {
                Poll::Ready(outcome) => self.guards.push(outcome.expect("a grant")),
                Poll::Pending => self.waits.push(wait),
            }
        }
    }

    /// Returns whether something was refused.
    fn act(&mut self, act: Act) -> bool {
        match act {
            Act::Ask { owner, key, mode } => return self.ask(owner, key, mode),
            Act::Release(at) if !self.guards.is_empty() => {
                drop(self.guards.swap_remove(at % self.guards.len()));
            }
            Act::Transfer { guard, owner } if !self.guards.is_empty() => {
                return self.transfer(guard, owner);
            }
            Act::Downgrade(at) if !self.guards.is_empty() => {
                let at = at % self.guards.len();
                if self.guards[at].mode() == X {
                    // Refused while permits are waited for, which leaves it exclusive.
                    let downgraded = block_on(self.guards[at].downgrade());
                    assert_eq!(downgraded.is_ok(), self.guards[at].mode() == S);
                }
            }
            Act::Cancel(at) if !self.waits.is_empty() => {
                drop(self.waits.swap_remove(at % self.waits.len()));
            }
            _ => {}
        }
        self.settle();
        false
    }

    fn ask(&mut self, owner: usize, at: usize, mode: Mode) -> bool {
        let before = snapshot(&self.world);
        let owner = self.owners[owner];
        let options = AcquireOptions::new().owner(owner).mode(mode);
        let mut acquire = self.world.lock(&format!("k{at}")).acquire_with(&options);
        match poll_once(&mut acquire) {
            Poll::Ready(Ok(guard)) => self.guards.push(guard),
            Poll::Pending => {
                assert!(!closes(before, owner, at, mode), "not found");
                self.waits.push(acquire);
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::ModeConflict => {}
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
                assert!(
                    closes(before, owner, at, mode),
                    "found for nothing: {error}"
                );
                return true;
            }
        }
        false
    }

    fn transfer(&mut self, guard: usize, owner: usize) -> bool {
        let at = guard % self.guards.len();
        let owner = self.owners[owner];
        let key = self.guards[at].key().clone();
        // Which of the equal holders of the key it is, the model does not care.
        let mode = self.guards[at].mode();
        let refused = block_on(self.guards[at].transfer_to(owner));
        let mut after = snapshot(&self.world);
        match refused {
            Ok(()) => assert!(!reaches_itself(&after, owner, None), "not found"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
                let names = (0..KEYS).map(|at| common::key(format!("k{at}")));
                let number = names.into_iter().position(|it| it == key).expect("a key");
                after[number][0].push((owner, mode));
                assert!(reaches_itself(&after, owner, None), "found for nothing");
                return true;
            }
        }
        false
    }
}

/// Whether a new wait would close a cycle.
fn closes(mut before: Snapshot, owner: OwnerId, at: usize, mode: Mode) -> bool {
    before[at][1].push((owner, mode));
    stuck(&before).contains(&owner) && reaches_itself(&before, owner, Some(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_refused_is_a_deadlock_and_nothing_else(acts in acts()) {
        let mut history = History::new();
        for act in acts {
            history.act(act);
        }
        history.waits.clear();
        history.guards.clear();
        history.world.assert_clean();
    }
}

#[test]
fn the_histories_have_what_is_looked_for() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut waited) = (0, 0);
    for _ in 0..200 {
        let mut history = History::new();
        for act in acts().new_tree(&mut runner).unwrap().current() {
            refused += usize::from(history.act(act));
            waited += history.waits.len();
        }
    }
    assert!(refused > 200, "{refused} refused");
    assert!(waited > 1000, "{waited} waited");
}
