//! Durations of many single events, and of a loop.

use std::time::{Duration, Instant};

/// Durations of single events.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Measures one call and adds it.
    pub fn measure<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = call();
        self.push(start.elapsed());
        value
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration, in microseconds, that `percent` of the samples do not exceed; not a number
    /// when there is no sample.
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        let found = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1);
        found.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e6)
    }
}

impl Extend<Duration> for Samples {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, durations: I) {
        self.0.extend(durations);
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

/// The mean wall time of one call, over `calls` of them in a loop.
pub fn nanoseconds_per_call(calls: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Samples = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(samples.percentile(50.0).round(), 50.0);
        assert_eq!(samples.percentile(99.0).round(), 99.0);
        assert_eq!(samples.percentile(100.0).round(), 100.0);
        assert!(Samples::default().percentile(50.0).is_nan());
    }
}
