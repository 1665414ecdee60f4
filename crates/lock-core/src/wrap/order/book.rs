//! Which classes were acquired while which were held.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::fork::ForkLocal;
use crate::{LockKey, OwnerId, OwnerToken};

/// The orders seen so far, over all [`LockOrder`](super::LockOrder) wrappers that share it. Clones
/// are the same book. A forked child starts with an empty one.
#[derive(Clone, Debug, Default)]
pub struct OrderBook(Arc<ForkLocal<Mutex<Seen>>>);

/// Classes that were acquired in both orders.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inversion {
    /// The orders, each against the one before it; the last one closes the circle.
    pub steps: Vec<OrderStep>,
}

/// One class acquired while another was held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrderStep {
    /// What was held.
    pub held: Arc<str>,
    /// What was acquired then.
    pub acquired: Arc<str>,
    /// Where in the code it was acquired for the first time, if that is known.
    pub site: Option<&'static Location<'static>>,
}

impl fmt::Display for Inversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            let and = if i == 0 { "" } else { ", and " };
            write!(f, "{and}`{}` while holding `{}`", step.acquired, step.held)?;
            if let Some(site) = step.site {
                write!(f, " at {site}")?;
            }
        }
        Ok(())
    }
}

/// Orders beyond so many are not learnt: names without a `/` are classes of their own, and a
/// program may have any number of them.
const MOST_ORDERS: usize = 16_384;
const MOST_INVERSIONS: usize = 1024;

type Site = Option<&'static Location<'static>>;
type Class = Arc<str>;

#[derive(Debug, Default)]
struct Seen {
    held: HashMap<OwnerId, SmallVec<[(OwnerToken, Class); 2]>>,
    owners: HashMap<OwnerToken, OwnerId>,
    /// What was acquired while a class was held.
    orders: HashMap<Class, HashMap<Class, Site>>,
    learnt: usize,
    inversions: Vec<Inversion>,
}

impl OrderBook {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been found so far, the first 1,024.
    pub fn inversions(&self) -> Vec<Inversion> {
        self.seen().inversions.clone()
    }

    /// An owner starts to acquire a key, and may wait for it.
    pub(super) fn asks(&self, owner: OwnerId, key: &LockKey, site: Site) {
        let found = self.seen().asks(owner, class_of(key), site);
        for inversion in found {
            tracing::warn!(
                order = %inversion,
                "locks are acquired in both orders, which can deadlock; choose one order, or take \
                 them together"
            );
        }
    }

    pub(super) fn holds(&self, owner: OwnerId, key: &LockKey, attempt: OwnerToken) {
        let mut seen = self.seen();
        if seen.owners.insert(attempt, owner).is_none() {
            let held = (attempt, Class::from(class_of(key)));
            seen.held.entry(owner).or_default().push(held);
        }
    }

    pub(super) fn ends(&self, attempt: OwnerToken) {
        let mut seen = self.seen();
        let Some(owner) = seen.owners.remove(&attempt) else {
            return;
        };
        if let Some(held) = seen.held.get_mut(&owner) {
            held.retain(|(other, _)| *other != attempt);
            if held.is_empty() {
                seen.held.remove(&owner);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let seen = self.0.get_or_init(Mutex::default);
        seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn asks(&mut self, owner: OwnerId, wanted: &str, site: Site) -> Vec<Inversion> {
        let Some(held) = self.held.get(&owner) else {
            return Vec::new();
        };
        let is_new = |class: &&Class| {
            let known = self.orders.get(*class);
            &***class != wanted && !known.is_some_and(|known| known.contains_key(wanted))
        };
        let held: SmallVec<[Class; 2]> = held
            .iter()
            .map(|(_, class)| class)
            .filter(is_new)
            .cloned()
            .collect();
        let mut found = Vec::new();
        for class in held {
            if self.learnt >= MOST_ORDERS {
                break;
            }
            let wanted = Class::from(wanted);
            let orders = self.orders.entry(Arc::clone(&class)).or_default();
            if orders.insert(Arc::clone(&wanted), site).is_some() {
                continue;
            }
            self.learnt += 1;
            if let Some(inversion) = self.inversion(&class, &wanted, site) {
                if self.inversions.len() < MOST_INVERSIONS {
                    self.inversions.push(inversion.clone());
                }
                found.push(inversion);
            }
        }
        found
    }

    /// The way back from what is acquired to what is held, if there is one.
    fn inversion(&self, held: &Class, acquired: &Class, site: Site) -> Option<Inversion> {
        let mut reached: HashMap<&Class, &Class> = HashMap::new();
        let mut visited: HashSet<&Class> = HashSet::from([acquired]);
        let mut agenda = std::collections::VecDeque::from([acquired]);
        while let Some(at) = agenda.pop_front() {
            for next in self.orders.get(at).into_iter().flat_map(HashMap::keys) {
                if visited.insert(next) {
                    reached.insert(next, at);
                    agenda.push_back(next);
                }
            }
            if reached.contains_key(held) {
                break;
            }
        }
        reached.get(held)?;
        let mut steps = Vec::new();
        let mut at = held;
        while let Some(before) = reached.get(at) {
            steps.push(OrderStep {
                held: Arc::clone(before),
                acquired: Arc::clone(at),
                site: self.orders[*before][at],
            });
            at = before;
        }
        steps.reverse();
        steps.push(OrderStep {
            held: Arc::clone(held),
            acquired: Arc::clone(acquired),
            site,
        });
        Some(Inversion { steps })
    }
}

/// Namespace and name up to the first `/`.
fn class_of(key: &LockKey) -> &str {
    let qualified = key.qualified();
    let start = key.namespace().len() + 1;
    let end = qualified[start..].find('/');
    &qualified[..end.map_or(qualified.len(), |end| start + end)]
}
