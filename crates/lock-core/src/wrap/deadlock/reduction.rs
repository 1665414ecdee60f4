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

use super::state::{Entered, Place, State, Turn};
use crate::clock::Instant;
use crate::{DeadlockEdge, Mode, OwnerId, OwnerOrigin, OwnerToken};

/// Which owners are taken at their word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Explicit ones; all others are taken to go on.
    Explicit,
    /// Inferred ones too.
    All,
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
    /// The node of an owner: it goes on.
    owners: HashMap<OwnerId, NodeId>,
    keys: HashMap<&'a Place, KeyNodes>,
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
        let trusted = self.trust == Trust::All || owner.origin() == OwnerOrigin::Explicit;
        let mut waits = self.state.waits_of(owner).peekable();
        let goes_on =
            !trusted || waits.peek().is_none() || waits.any(|it| it.wait.is_over(self.now));
        let node = self.node(u32::from(!goes_on));
        self.owners.insert(owner, node);
        if !goes_on {
            self.unexplored.push((owner, node));
        }
        node
    }

    /// Builds the nodes of everything that can be reached.
    fn explore(&mut self) {
        let state = self.state;
        while let Some((owner, node)) = self.unexplored.pop() {
            for entered in state.waits_of(owner) {
                let granted = self.granted(entered);
                self.link(granted, node, 1);
            }
        }
    }

    /// The node of a wait: nobody is in its way.
    fn granted(&mut self, entered: &'a Entered) -> NodeId {
        let place = &entered.wait.place;
        if !self.keys.contains_key(place) {
            let key = self.key(place);
            self.keys.insert(place, key);
        }
        let before = self.extend_line(entered);
        let key = &self.keys[place];
        let line = before.checked_sub(1).map(|last| &key.line[last]);
        let (holders, line) = match entered.wait.mode {
            Mode::Exclusive => (key.all_gone, line.map(|it| it.all_gone)),
            Mode::Shared => (key.exclusive_gone, line.map(|it| it.exclusive_gone)),
            Mode::Permit(_) => (key.exclusive_gone, line.map(|it| it.all_gone)),
        };
        let granted = self.node(1 + u32::from(line.is_some()));
        self.link(holders, granted, 1);
        if let Some(line) = line {
            self.link(line, granted, 1);
        }
        if let Mode::Permit(wanted) = entered.wait.mode {
            let key = &self.keys[place];
            let free = wanted.of().saturating_sub(key.permits_used);
            let missing = wanted.count().saturating_sub(free);
            if missing > 0 {
                self.permits_return(place, missing, granted);
            }
        }
        granted
    }

    /// Makes `granted` also need that many permits back.
    fn permits_return(&mut self, place: &'a Place, missing: u32, granted: NodeId) {
        self.nodes[granted].needed += 1;
        let returned = self.node(missing);
        self.link(returned, granted, 1);
        let holders: Vec<_> = self.keys[place]
            .holders
            .iter()
            .map(|(node, _, mode)| (*node, permits(*mode)))
            .collect();
        for (node, count) in holders {
            self.link(node, returned, count);
        }
    }

    fn key(&mut self, place: &'a Place) -> KeyNodes {
        let state = self.state;
        let mut holders = Vec::new();
        for holder in state.holders(place) {
            holders.push((self.owner(holder.owner), holder.owner, holder.mode));
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
    fn extend_line(&mut self, entered: &'a Entered) -> usize {
        let state = self.state;
        let place = &entered.wait.place;
        let known = self.keys[place].line.last().map(|last| last.turn);
        for (turn, ahead) in state.before(entered, known) {
            let previous = self.keys[place].line.last();
            let previous = previous.map(|it| (it.all_gone, it.exclusive_gone));
            let node = self.owner(ahead.owner);
            let all_gone = self.both(previous.map(|it| it.0), node);
            let exclusive_gone = if ahead.mode == Mode::Exclusive {
                self.both(previous.map(|it| it.1), node)
            } else {
                previous.map_or_else(|| self.node(0), |it| it.1)
            };
            if let Some(key) = self.keys.get_mut(place) {
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
        let line = &self.keys[place].line;
        line.partition_point(|it| it.turn < entered.bound)
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
        while let Some((node, entered)) = agenda.pop_front() {
            let by = entered.wait.attempt;
            for (next, owner) in self.in_the_way(entered) {
                if next == start {
                    return Some(self.edges(start, (node, by), &reached));
                }
                if let Entry::Vacant(unreached) = reached.entry(next) {
                    unreached.insert((node, by));
                    agenda.extend(state.waits_of(owner).map(|wait| (next, wait)));
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
            .map(|entered| entered.wait.edge())
            .collect();
        edges.reverse();
        edges
    }

    /// Who is left and in the way of a wait, without those that an earlier call has named.
    fn in_the_way(&mut self, entered: &Entered) -> Vec<(NodeId, OwnerId)> {
        let shared = entered.wait.mode == Mode::Shared;
        let blocks = |mode: Mode| !shared || mode == Mode::Exclusive;
        let Some(key) = self.keys.get_mut(&entered.wait.place) else {
            return Vec::new();
        };
        let before = key.line.partition_point(|it| it.turn < entered.bound);
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
