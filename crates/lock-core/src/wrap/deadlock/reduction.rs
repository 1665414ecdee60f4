//! Whether a wait can ever end: let everyone who can go on finish, and see who is left.
//!
//! This is the reduction of a resource graph (R. C. Holt, "Some deadlock properties of computer
//! systems", 1972): owners that wait for nothing finish and release, which lets others finish, and
//! so on. Owners that are left wait for each other for ever. It needs no special case for "all of
//! them" (exclusive, shared), "enough of them" (permits) and "any of them" (several waits of one
//! owner): each is a node that counts down to zero.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

use smallvec::SmallVec;

use super::place::Holder;
use super::state::{QueueId, State, Turn, Wait};
use crate::clock::Instant;
use crate::{Anchor, DeadlockEdge, Mode, OwnerId, OwnerOrigin, OwnerToken};

/// What is believed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Waits and holds of explicit owners, waits that park a thread, and holds that cannot leave
    /// their thread. All others are taken to end.
    Proof,
    /// What inferred owners seem to wait for and to hold, too.
    All,
}

impl Trust {
    fn believes(self, wait: &Wait) -> bool {
        self == Self::All || wait.is_proof()
    }

    fn believes_holder(self, holder: &Holder) -> bool {
        let explicit = holder.owner.origin() == OwnerOrigin::Explicit;
        self == Self::All || explicit || holder.anchor == Anchor::Hold
    }
}

/// The cycle that a wait of `owner` closes, if it does.
pub(super) fn deadlock(
    state: &State,
    owner: OwnerId,
    attempt: OwnerToken,
    trust: Trust,
) -> Option<Vec<DeadlockEdge>> {
    let mut reduction = Reduction {
        state,
        trust,
        now: Instant::now(),
        nodes: Vec::new(),
        free: None,
        owners: HashMap::new(),
        keys: HashMap::new(),
        unexplored: Vec::new(),
    };
    let start = reduction.owner(owner);
    reduction.explore();
    reduction.run();
    if reduction.is_done(start) {
        return None;
    }
    reduction.cycle(start, attempt)
}

type NodeId = usize;

/// Something that happens once enough others have happened.
struct Node {
    needed: u32,
    /// What it contributes to, and how much.
    then: SmallVec<[(NodeId, u32); 2]>,
}

struct Reduction<'a> {
    state: &'a State,
    trust: Trust,
    now: Instant,
    nodes: Vec<Node>,
    /// The node of whoever is taken to go on.
    free: Option<NodeId>,
    /// The node of an owner: it goes on.
    owners: HashMap<OwnerId, NodeId>,
    keys: HashMap<QueueId, KeyNodes>,
    unexplored: Vec<(OwnerId, NodeId)>,
}

/// The nodes of one key.
struct KeyNodes {
    holders: Vec<(NodeId, OwnerId, Mode)>,
    /// All holders are gone; all exclusive holders are gone.
    all_gone: NodeId,
    exclusive_gone: NodeId,
    permits_used: u32,
    /// The queue as far as it has been looked at, with nodes for "everyone up to here is gone" and
    /// "every exclusive one up to here is gone".
    line: Vec<InLine>,
    /// How far the search for a cycle has followed holders and queue, by what is in the way of
    /// shared waiters and of the others.
    followed: [Option<usize>; 2],
}

struct InLine {
    turn: Turn,
    owner: OwnerId,
    node: NodeId,
    mode: Mode,
    all_gone: NodeId,
    exclusive_gone: NodeId,
}

impl<'a> Reduction<'a> {
    fn node(&mut self, needed: u32) -> NodeId {
        self.nodes.push(Node {
            needed,
            then: SmallVec::new(),
        });
        self.nodes.len() - 1
    }

    fn link(&mut self, from: NodeId, to: NodeId, weight: u32) {
        self.nodes[from].then.push((to, weight));
    }

    fn is_done(&self, node: NodeId) -> bool {
        self.nodes[node].needed == 0
    }

    fn owner(&mut self, owner: OwnerId) -> NodeId {
        if let Some(node) = self.owners.get(&owner) {
            return *node;
        }
        let (trust, now) = (self.trust, self.now);
        let mut waits = self.state.waits_of(owner);
        let mut believed = waits.by_ref().filter(|it| trust.believes(it)).peekable();
        let goes_on = believed.peek().is_none() || believed.any(|it| it.is_over(now));
        let node = self.node(u32::from(!goes_on));
        self.owners.insert(owner, node);
        if !goes_on {
            self.unexplored.push((owner, node));
        }
        node
    }

    fn free(&mut self) -> NodeId {
        let node = self.free.unwrap_or_else(|| self.node(0));
        self.free = Some(node);
        node
    }

    /// Builds the nodes of everything that can be reached.
    fn explore(&mut self) {
        let state = self.state;
        while let Some((owner, node)) = self.unexplored.pop() {
            let trust = self.trust;
            for wait in state.waits_of(owner).filter(|it| trust.believes(it)) {
                let granted = self.granted(wait);
                self.link(granted, node, 1);
            }
        }
    }

    /// The node of a wait: nobody is in its way.
    fn granted(&mut self, wait: &'a Wait) -> NodeId {
        if !self.keys.contains_key(&wait.queue) {
            let key = self.key(wait);
            self.keys.insert(wait.queue, key);
        }
        let before = self.extend_line(wait);
        let key = &self.keys[&wait.queue];
        let line = before.checked_sub(1).map(|last| &key.line[last]);
        let (holders, line) = match wait.mode {
            Mode::Exclusive => (key.all_gone, line.map(|it| it.all_gone)),
            Mode::Shared => (key.exclusive_gone, line.map(|it| it.exclusive_gone)),
            Mode::Permit(_) => (key.exclusive_gone, line.map(|it| it.all_gone)),
        };
        let missing = match wait.mode {
            Mode::Permit(wanted) => {
                let free = wanted.of().saturating_sub(key.permits_used);
                wanted.count().saturating_sub(free)
            }
            Mode::Exclusive | Mode::Shared => 0,
        };
        let granted = self.node(1 + u32::from(line.is_some()));
        self.link(holders, granted, 1);
        if let Some(line) = line {
            self.link(line, granted, 1);
        }
        if missing > 0 {
            self.permits_return(wait.queue, missing, granted);
        }
        granted
    }

    /// Makes `granted` also need that many permits back.
    fn permits_return(&mut self, queue: QueueId, missing: u32, granted: NodeId) {
        self.nodes[granted].needed += 1;
        let returned = self.node(missing);
        self.link(returned, granted, 1);
        let holders: Vec<_> = self.keys[&queue]
            .holders
            .iter()
            .map(|(node, _, mode)| (*node, permits(*mode)))
            .collect();
        for (node, count) in holders {
            self.link(node, returned, count);
        }
    }

    fn key(&mut self, wait: &Wait) -> KeyNodes {
        let mut seen = Vec::new();
        wait.place.each_holder(|holder| seen.push(*holder));
        let mut holders = Vec::with_capacity(seen.len());
        for holder in seen {
            let node = match self.trust.believes_holder(&holder) {
                true => self.owner(holder.owner),
                false => self.free(),
            };
            holders.push((node, holder.owner, holder.mode));
        }
        let (all_gone, exclusive_gone) = (self.node(0), self.node(0));
        let mut permits_used = 0_u32;
        for (node, _, mode) in &holders {
            self.nodes[all_gone].needed += 1;
            self.link(*node, all_gone, 1);
            if *mode == Mode::Exclusive {
                self.nodes[exclusive_gone].needed += 1;
                self.link(*node, exclusive_gone, 1);
            }
            permits_used = permits_used.saturating_add(permits(*mode));
        }
        KeyNodes {
            holders,
            all_gone,
            exclusive_gone,
            permits_used,
            line: Vec::new(),
            followed: [None; 2],
        }
    }

    /// Looks at the queue up to a wait; returns how many stand before it.
    fn extend_line(&mut self, wait: &'a Wait) -> usize {
        let state = self.state;
        let known = self.keys[&wait.queue].line.last().map(|last| last.turn);
        for (turn, ahead) in state.before(wait, known) {
            let previous = self.keys[&wait.queue].line.last();
            let previous = previous.map(|it| (it.all_gone, it.exclusive_gone));
            // A wait that nobody vouches for may be given up, or be granted to somebody else.
            let node = match self.trust.believes(ahead) {
                true => self.owner(ahead.owner),
                false => self.free(),
            };
            let all_gone = self.both(previous.map(|it| it.0), node);
            let exclusive_gone = if ahead.mode == Mode::Exclusive {
                self.both(previous.map(|it| it.1), node)
            } else {
                previous.map_or_else(|| self.node(0), |it| it.1)
            };
            if let Some(key) = self.keys.get_mut(&wait.queue) {
                key.line.push(InLine {
                    turn,
                    owner: ahead.owner,
                    node,
                    mode: ahead.mode,
                    all_gone,
                    exclusive_gone,
                });
            }
        }
        let line = &self.keys[&wait.queue].line;
        line.partition_point(|it| it.turn < wait.bound)
    }

    fn both(&mut self, first: Option<NodeId>, second: NodeId) -> NodeId {
        let node = self.node(1 + u32::from(first.is_some()));
        for from in first.into_iter().chain([second]) {
            self.link(from, node, 1);
        }
        node
    }

    /// Lets everything happen that can.
    fn run(&mut self) {
        let mut happened: Vec<_> = (0..self.nodes.len())
            .filter(|node| self.is_done(*node))
            .collect();
        while let Some(node) = happened.pop() {
            for (to, weight) in std::mem::take(&mut self.nodes[node].then) {
                let needed = &mut self.nodes[to].needed;
                if *needed > 0 {
                    *needed = needed.saturating_sub(weight);
                    if *needed == 0 {
                        happened.push(to);
                    }
                }
            }
        }
    }

    /// The shortest cycle through a wait of an owner that is left. `None` when the owner only waits
    /// behind a cycle of others.
    fn cycle(&mut self, start: NodeId, attempt: OwnerToken) -> Option<Vec<DeadlockEdge>> {
        let state = self.state;
        // From whom, and by which wait, an owner was reached.
        let mut reached: HashMap<NodeId, (NodeId, OwnerToken)> = HashMap::new();
        let mut agenda: VecDeque<_> = state
            .wait(attempt)
            .map(|wait| (start, wait))
            .into_iter()
            .collect();
        while let Some((node, wait)) = agenda.pop_front() {
            let by = wait.attempt;
            for (next, owner) in self.in_the_way(wait) {
                if next == start {
                    return Some(self.edges(start, (node, by), &reached));
                }
                if let Entry::Vacant(unreached) = reached.entry(next) {
                    unreached.insert((node, by));
                    let waits = state.waits_of(owner);
                    let believed = waits.filter(|it| self.trust.believes(it));
                    agenda.extend(believed.map(|wait| (next, wait)));
                }
            }
        }
        None
    }

    fn edges(
        &self,
        start: NodeId,
        last: (NodeId, OwnerToken),
        reached: &HashMap<NodeId, (NodeId, OwnerToken)>,
    ) -> Vec<DeadlockEdge> {
        let steps = std::iter::successors(Some(last), |(node, _)| {
            let earlier = reached.get(node).copied();
            earlier.filter(|_| *node != start)
        });
        let mut edges: Vec<_> = steps
            .filter_map(|(_, attempt)| self.state.wait(attempt))
            .map(Wait::edge)
            .collect();
        edges.reverse();
        edges
    }

    /// Who is left and in the way of a wait, without those that an earlier call has named.
    fn in_the_way(&mut self, wait: &Wait) -> Vec<(NodeId, OwnerId)> {
        let shared = wait.mode == Mode::Shared;
        let blocks = |mode: Mode| !shared || mode == Mode::Exclusive;
        let Some(key) = self.keys.get_mut(&wait.queue) else {
            return Vec::new();
        };
        let before = key.line.partition_point(|it| it.turn < wait.bound);
        let followed = &mut key.followed[usize::from(shared)];
        let holders = match followed {
            None => &key.holders[..],
            Some(_) => &[],
        };
        let from = followed.unwrap_or(0).min(before);
        *followed = Some(followed.unwrap_or(0).max(before));
        let holders = holders.iter().copied();
        let line = key.line[from..before]
            .iter()
            .map(|it| (it.node, it.owner, it.mode));
        holders
            .chain(line)
            .filter(|(node, _, mode)| blocks(*mode) && self.nodes[*node].needed > 0)
            .map(|(node, owner, _)| (node, owner))
            .collect()
    }
}

fn permits(mode: Mode) -> u32 {
    match mode {
        Mode::Permit(permits) => permits.count(),
        Mode::Exclusive | Mode::Shared => 0,
    }
}
