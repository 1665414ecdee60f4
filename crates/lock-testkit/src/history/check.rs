//! The judge.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{Event, ModeRecord, What};

/// What a history without violations amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many grants there were.
    pub grants: usize,
    /// How many of them were not exclusive.
    pub together: usize,
    /// The most holders one key had at once.
    pub most_at_once: usize,
}

/// What must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Two held a key at once whose modes exclude each other.
    Overlap {
        /// The key.
        key: String,
        /// Who held it.
        holder: Hold,
        /// Who came in.
        intruder: Hold,
    },
    /// More permits were held than there are.
    TooManyPermits {
        /// The key.
        key: String,
        /// How many were held once `intruder` came in.
        held: u32,
        /// Who came in.
        intruder: Hold,
    },
    /// A later exclusive grant carried a number that is not higher.
    FencingWentBack {
        /// The key.
        key: String,
        /// The highest number before.
        before: u64,
        /// The later grant.
        later: Hold,
    },
}

/// One hold of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it came in, in nanoseconds since boot.
    pub from: u64,
    /// Up to when it surely held.
    pub until: u64,
    /// The process that held.
    pub process: u32,
    /// The attempt that held.
    pub attempt: String,
    /// How it held.
    pub mode: ModeRecord,
    /// Its fencing number.
    pub fencing: Option<u64>,
}

/// Judges a history: no overlap of modes that exclude each other, no permit too many, and fencing
/// numbers that strictly rise per key.
///
/// A hold that never left, of a killed process say, surely held only in the moment it came in.
///
/// # Errors
/// Every violation that was found.
pub fn check(events: &[Event]) -> Result<Summary, Vec<Violation>> {
    let mut summary = Summary::default();
    let mut violations = Vec::new();
    for (key, holds) in holds(events) {
        summary.grants += holds.len();
        let exclusive = |hold: &&Hold| hold.mode == ModeRecord::Exclusive;
        summary.together += holds.len() - holds.iter().filter(exclusive).count();
        let most = check_overlaps(&key, &holds, &mut violations);
        summary.most_at_once = summary.most_at_once.max(most);
        check_fencing(&key, &holds, &mut violations);
    }
    if violations.is_empty() {
        Ok(summary)
    } else {
        Err(violations)
    }
}

/// The holds of each key, in the order they came in.
fn holds(events: &[Event]) -> BTreeMap<String, Vec<Hold>> {
    let leaves: HashMap<(&str, &str), u64> = events
        .iter()
        .filter(|event| event.what == What::Leave)
        .map(|event| ((event.key.as_str(), event.attempt.as_str()), event.at))
        .collect();
    let mut holds: BTreeMap<String, Vec<Hold>> = BTreeMap::new();
    for event in events {
        let What::Enter { mode, fencing } = event.what else {
            continue;
        };
        let left = leaves.get(&(event.key.as_str(), event.attempt.as_str()));
        holds.entry(event.key.clone()).or_default().push(Hold {
            from: event.at,
            until: left.copied().unwrap_or(event.at),
            process: event.process,
            attempt: event.attempt.clone(),
            mode,
            fencing,
        });
    }
    for holds in holds.values_mut() {
        holds.sort_by_key(|hold| hold.from);
    }
    holds
}

/// Goes along the time line with those who hold now. Returns the most at once.
fn check_overlaps(key: &str, holds: &[Hold], violations: &mut Vec<Violation>) -> usize {
    let mut now: Vec<&Hold> = Vec::new();
    let mut most = 0;
    for intruder in holds {
        now.retain(|hold| hold.until > intruder.from);
        if let Some(holder) = now.iter().find(|hold| excludes(hold.mode, intruder.mode)) {
            violations.push(Violation::Overlap {
                key: key.to_owned(),
                holder: (*holder).clone(),
                intruder: intruder.clone(),
            });
        }
        now.push(intruder);
        most = most.max(now.len());
        if let ModeRecord::Permit { of, .. } = intruder.mode {
            let held = now.iter().map(|hold| permits(hold.mode)).sum();
            if held > of {
                violations.push(Violation::TooManyPermits {
                    key: key.to_owned(),
                    held,
                    intruder: intruder.clone(),
                });
            }
        }
    }
    most
}

fn check_fencing(key: &str, holds: &[Hold], violations: &mut Vec<Violation>) {
    let mut highest = None;
    let exclusive = holds
        .iter()
        .filter(|hold| hold.mode == ModeRecord::Exclusive);
    for later in exclusive {
        if let Some(before) = highest
            && later.fencing.is_none_or(|number| number <= before)
        {
            violations.push(Violation::FencingWentBack {
                key: key.to_owned(),
                before,
                later: later.clone(),
            });
        }
        highest = highest.max(later.fencing);
    }
}

fn excludes(held: ModeRecord, asked: ModeRecord) -> bool {
    match (held, asked) {
        (ModeRecord::Shared, ModeRecord::Shared) => false,
        (ModeRecord::Permit { of: held, .. }, ModeRecord::Permit { of: asked, .. }) => {
            held != asked
        }
        _ => true,
    }
}

fn permits(mode: ModeRecord) -> u32 {
    match mode {
        ModeRecord::Permit { count, .. } => count,
        ModeRecord::Exclusive | ModeRecord::Shared => 0,
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap {
                key,
                holder,
                intruder,
            } => write!(
                f,
                "`{key}` was held by {holder:?} when {intruder:?} came in"
            ),
            Self::TooManyPermits {
                key,
                held,
                intruder,
            } => write!(
                f,
                "`{key}` had {held} permits out once {intruder:?} came in"
            ),
            Self::FencingWentBack { key, before, later } => {
                write!(
                    f,
                    "`{key}` had the fencing number {before} before {later:?}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(
        attempt: &str,
        mode: ModeRecord,
        fencing: Option<u64>,
        times: (u64, u64),
    ) -> [Event; 2] {
        let event = |at, what| Event {
            at,
            process: 1,
            key: ":k".to_owned(),
            attempt: attempt.to_owned(),
            what,
        };
        [
            event(times.0, What::Enter { mode, fencing }),
            event(times.1, What::Leave),
        ]
    }

    const PERMIT: ModeRecord = ModeRecord::Permit { count: 1, of: 2 };

    #[test]
    fn holds_one_after_another_pass() {
        let history = [
            hold("a", ModeRecord::Exclusive, Some(1), (10, 20)),
            hold("b", ModeRecord::Exclusive, Some(2), (20, 30)),
            hold("c", ModeRecord::Shared, None, (31, 50)),
            hold("d", ModeRecord::Shared, None, (40, 60)),
        ]
        .concat();
        let summary = check(&history).unwrap();
        assert_eq!(
            (summary.grants, summary.together, summary.most_at_once),
            (4, 2, 2)
        );
    }

    #[test]
    fn an_overlap_is_caught_also_when_files_are_merged_out_of_order() {
        let history = [
            hold("b", ModeRecord::Shared, None, (19, 30)),
            hold("a", ModeRecord::Exclusive, Some(1), (10, 20)),
        ]
        .concat();
        let violations = check(&history).unwrap_err();
        assert!(matches!(&violations[..], [Violation::Overlap { .. }]));
    }

    #[test]
    fn a_long_hold_is_remembered_behind_short_ones() {
        let history = [
            hold("a", ModeRecord::Shared, None, (10, 100)),
            hold("b", ModeRecord::Shared, None, (20, 30)),
            hold("c", ModeRecord::Exclusive, Some(1), (90, 95)),
        ]
        .concat();
        assert_eq!(check(&history).unwrap_err().len(), 1);
    }

    #[test]
    fn a_permit_too_many_is_caught() {
        let two = [
            hold("a", PERMIT, None, (10, 40)),
            hold("b", PERMIT, None, (20, 40)),
        ]
        .concat();
        check(&two).unwrap();
        let three = [two, hold("c", PERMIT, None, (30, 40)).to_vec()].concat();
        let violations = check(&three).unwrap_err();
        assert!(matches!(
            &violations[..],
            [Violation::TooManyPermits { held: 3, .. }]
        ));
    }

    #[test]
    fn a_fencing_number_that_repeats_or_is_missing_is_caught() {
        for second in [Some(7), Some(6), None] {
            let history = [
                hold("a", ModeRecord::Exclusive, Some(7), (10, 20)),
                hold("b", ModeRecord::Exclusive, second, (30, 40)),
            ]
            .concat();
            let violations = check(&history).unwrap_err();
            assert!(matches!(
                &violations[..],
                [Violation::FencingWentBack { before: 7, .. }]
            ));
        }
    }

    #[test]
    fn a_killed_holder_does_not_hold_for_ever() {
        let killed = hold("a", ModeRecord::Exclusive, Some(1), (10, 20));
        let next = hold("b", ModeRecord::Exclusive, Some(2), (30, 40));
        let history = [&killed[..1], &next].concat();
        check(&history).unwrap();
    }
}
