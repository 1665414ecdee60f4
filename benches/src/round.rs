//! One round of measurements, and all rounds of a section.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bar::median;

/// What was measured side by side in one round.
#[derive(Debug, Default)]
pub struct Round {
    figures: BTreeMap<String, f64>,
    pub(crate) is_void: bool,
    pub(crate) foreign_cores: f64,
    pub(crate) worst_stall: Duration,
}

impl Round {
    /// Notes a figure. The unit is the bench's to choose, one for each name.
    pub fn record(&mut self, what: impl Into<String>, figure: f64) {
        self.figures.insert(what.into(), figure);
    }

    /// A figure of this round; not a number when it was not measured, so that no bar holds by it.
    pub fn get(&self, what: &str) -> f64 {
        self.figures.get(what).copied().unwrap_or(f64::NAN)
    }

    #[cfg(test)]
    pub(crate) fn observed(is_void: bool, worst_stall: Duration) -> Self {
        Self {
            is_void,
            worst_stall,
            ..Self::default()
        }
    }
}

/// All rounds of one section.
#[derive(Debug)]
pub struct Rounds(Vec<Round>);

impl Rounds {
    /// The rounds in order.
    pub fn iter(&self) -> impl Iterator<Item = &Round> {
        self.0.iter()
    }

    /// The median of one figure.
    pub fn median(&self, what: &str) -> f64 {
        self.median_of(|round| round.get(what))
    }

    /// The median of what `figure` makes of each round.
    pub fn median_of(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(&self.0.iter().map(figure).collect::<Vec<_>>())
    }

    /// The names of everything that was measured.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .0
            .iter()
            .flat_map(|round| round.figures.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) fn void_share(&self) -> f64 {
        let void = self.0.iter().filter(|round| round.is_void).count();
        void as f64 / self.0.len().max(1) as f64
    }

    /// The median of the rounds' worst stalls.
    pub(crate) fn worst_stall(&self) -> Duration {
        let stalls = self.median_of(|round| round.worst_stall.as_secs_f64());
        Duration::try_from_secs_f64(stalls).unwrap_or_default()
    }
}

impl From<Vec<Round>> for Rounds {
    fn from(rounds: Vec<Round>) -> Self {
        Self(rounds)
    }
}
