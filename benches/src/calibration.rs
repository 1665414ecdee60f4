//! How long the machine keeps a thread that only spins from running.

use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_millis(50);

/// The worst stall of a spinning thread on every core.
pub(crate) fn worst_stall() -> Duration {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spinning: Vec<_> = (0..cores).map(|_| std::thread::spawn(spin)).collect();
    spinning
        .into_iter()
        .filter_map(|thread| thread.join().ok())
        .max()
        .unwrap_or_default()
}

fn spin() -> Duration {
    let start = Instant::now();
    let mut last = start;
    let mut worst = Duration::ZERO;
    while last.duration_since(start) < SPIN {
        let now = Instant::now();
        worst = worst.max(now.duration_since(last));
        last = now;
    }
    worst
}
