//! Who is next on a contended key.

/// Who is next on a contended key.
///
/// Within either, a higher priority goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fairness {
    /// Whoever came first: a release hands the lock over, and nobody comes in between. Right for
    /// tasks, where a hand-over costs little and the alternative starves.
    FirstCome,
    /// A release frees the lock and wakes the next waiter; whoever comes may take it before that one
    /// runs, until it has waited for half a millisecond. Then it is handed the lock. Right for
    /// threads, where a hand-over costs a switch of threads each time.
    Barging,
}
