//! The keys that are locked, and how long a loop over them takes.

use std::time::Duration;

use compact_str::{CompactString, format_compact};
use rustix::time::{ClockId, clock_gettime};

/// A string of 21 bytes that lies in place, so that no contestant pays for copies of keys.
pub(crate) type Key = CompactString;

pub(crate) fn key(number: usize) -> Key {
    format_compact!("myapp:orders:{number:08}")
}

pub(crate) fn keys(count: usize) -> Vec<Key> {
    (0..count).map(key).collect()
}

/// Processor time of this thread, which others of the machine do not lengthen.
pub(crate) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// How many calls come first, to warm the caches.
const WARMUP: usize = 1_000;

/// Processor time of one `call`, in nanoseconds, over `calls` of them with the keys in turn.
///
/// The call is written down once, for a compiler copies it into a loop more readily than into two.
pub(crate) fn time_each(keys: &[Key], calls: usize, mut call: impl FnMut(&Key)) -> f64 {
    let mut start = Duration::ZERO;
    for (turn, key) in keys.iter().cycle().take(WARMUP + calls).enumerate() {
        if turn == WARMUP {
            start = thread_time();
        }
        call(key);
    }
    (thread_time() - start).as_secs_f64() * 1e9 / calls as f64
}

/// The same for an acquire of each of some `locks` that is awaited, in a runtime of this thread, and
/// the `end` of what it gives. No future is around the lock's own, which would be timed as well.
pub(crate) fn time_each_async<'a, L, A: Future>(
    locks: &'a [L],
    calls: usize,
    mut acquire: impl FnMut(&'a L) -> A,
    mut end: impl FnMut(A::Output),
) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(async {
        let mut start = Duration::ZERO;
        for (turn, lock) in locks.iter().cycle().take(WARMUP + calls).enumerate() {
            if turn == WARMUP {
                start = thread_time();
            }
            end(acquire(lock).await);
        }
        (thread_time() - start).as_secs_f64() * 1e9 / calls as f64
    }))
}
