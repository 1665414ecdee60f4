//! A limit that a figure must keep.

use crate::Rounds;

/// The share of void rounds, or of rounds without a figure, above which nothing can be concluded.
const MOST_VOID: f64 = 1.0 / 3.0;
/// A tail may be this many times the worst stall of a thread that does nothing but spin.
const STALLS_IN_A_TAIL: f64 = 3.0;

/// A limit on the median figure of the rounds.
#[derive(Clone, Debug)]
pub struct Bar {
    name: String,
    limit: f64,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    AtMost,
    AtLeast,
    /// At most, and no less than what the machine itself stalls.
    TailAtMost,
}

/// Whether a bar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The median keeps the limit.
    Holds,
    /// It does not.
    FallsShort,
    /// Too many rounds were disturbed by other programs, or had nothing to compare with.
    Inconclusive,
}

impl Bar {
    /// The figure must be at most `limit`.
    pub fn at_most(name: impl Into<String>, limit: f64) -> Self {
        Self::new(name, limit, Direction::AtMost)
    }

    /// The figure must be at least `limit`.
    pub fn at_least(name: impl Into<String>, limit: f64) -> Self {
        Self::new(name, limit, Direction::AtLeast)
    }

    /// The figure, in microseconds, must be at most `limit`, or at most three times the worst
    /// stall of its round if that is more.
    pub fn tail_at_most(name: impl Into<String>, limit_in_microseconds: f64) -> Self {
        Self::new(name, limit_in_microseconds, Direction::TailAtMost)
    }

    fn new(name: impl Into<String>, limit: f64, direction: Direction) -> Self {
        Self {
            name: name.into(),
            limit,
            direction,
        }
    }

    /// What the bar is about.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The median of the figures that there are, the limit that applies, and what follows.
    pub(crate) fn judge(&self, rounds: &Rounds, figures: &[f64]) -> (f64, f64, Verdict) {
        let numbers: Vec<f64> = figures.iter().copied().filter(|f| !f.is_nan()).collect();
        let missing = (figures.len() - numbers.len()) as f64 / figures.len().max(1) as f64;
        let figure = median(&numbers);
        let limit = match self.direction {
            Direction::TailAtMost => {
                let stall = rounds.worst_stall().as_secs_f64() * 1e6;
                self.limit.max(STALLS_IN_A_TAIL * stall)
            }
            Direction::AtMost | Direction::AtLeast => self.limit,
        };
        let keeps = match self.direction {
            Direction::AtLeast => figure >= limit,
            Direction::AtMost | Direction::TailAtMost => figure <= limit,
        };
        let verdict = match keeps {
            _ if rounds.void_share().max(missing) > MOST_VOID => Verdict::Inconclusive,
            true => Verdict::Holds,
            // Also a figure that is no number falls short.
            false => Verdict::FallsShort,
        };
        (figure, limit, verdict)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::FallsShort => "falls short",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// The middle one; not a number when there is none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Round;

    fn rounds(void: usize, of: usize) -> Rounds {
        let round = |index| Round::observed(index < void, Duration::from_micros(100));
        Rounds::from((0..of).map(round).collect::<Vec<_>>())
    }

    #[test]
    fn the_median_decides_in_both_directions() {
        let calm = rounds(0, 3);
        let figures = [1.0, 9.0, 2.0];
        let judged = |bar: Bar| bar.judge(&calm, &figures).2;
        assert_eq!(judged(Bar::at_most("x", 2.0)), Verdict::Holds);
        assert_eq!(judged(Bar::at_most("x", 1.9)), Verdict::FallsShort);
        assert_eq!(judged(Bar::at_least("x", 2.0)), Verdict::Holds);
        assert_eq!(judged(Bar::at_least("x", 2.1)), Verdict::FallsShort);
    }

    #[test]
    fn a_figure_that_is_no_number_falls_short() {
        let bar = Bar::at_most("x", 2.0);
        assert_eq!(bar.judge(&rounds(0, 3), &[]).2, Verdict::FallsShort);
    }

    #[test]
    fn rounds_without_a_figure_are_left_out_while_they_are_few() {
        let (calm, missing) = (rounds(0, 3), f64::NAN);
        let judged = |figures: [f64; 3]| Bar::at_most("x", 2.0).judge(&calm, &figures);
        assert_eq!(judged([1.0, missing, 1.0]), (1.0, 2.0, Verdict::Holds));
        // Without end is a figure.
        assert_eq!(
            judged([1.0, f64::INFINITY, f64::INFINITY]).2,
            Verdict::FallsShort
        );
        assert_eq!(judged([1.0, missing, missing]).2, Verdict::Inconclusive);
        assert_eq!(judged([missing; 3]).2, Verdict::Inconclusive);
    }

    #[test]
    fn a_disturbed_run_concludes_nothing() {
        let bar = Bar::at_most("x", 2.0);
        assert_eq!(bar.judge(&rounds(3, 9), &[1.0]).2, Verdict::Holds);
        assert_eq!(bar.judge(&rounds(4, 9), &[1.0]).2, Verdict::Inconclusive);
    }

    #[test]
    fn a_tail_may_be_three_stalls_of_the_machine() {
        let calm = rounds(0, 3);
        assert_eq!(Bar::tail_at_most("x", 20.0).judge(&calm, &[300.0]).1, 300.0);
        assert_eq!(
            Bar::tail_at_most("x", 900.0).judge(&calm, &[300.0]).1,
            900.0
        );
    }
}
