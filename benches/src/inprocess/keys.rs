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

/// Processor time of one `call`, in nanoseconds, over `calls` of them with the keys in turn.
pub(crate) fn time_each(keys: &[Key], calls: usize, mut call: impl FnMut(&Key)) -> f64 {
    for key in keys.iter().take(1_000) {
        call(key);
    }
    let start = thread_time();
    for key in keys.iter().cycle().take(calls) {
        call(key);
    }
    (thread_time() - start).as_secs_f64() * 1e9 / calls as f64
}

/// The same for an acquire that is awaited, in a runtime of this thread, and `end`, which drops the
/// guard. Awaited here without a future around it, which would be timed as well.
pub(crate) fn time_each_async<'k, A: Future>(
    keys: &'k [Key],
    calls: usize,
    mut acquire: impl FnMut(&'k Key) -> A,
    mut end: impl FnMut(A::Output),
) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(async {
        for key in keys.iter().take(1_000) {
            end(acquire(key).await);
        }
        let start = thread_time();
        for key in keys.iter().cycle().take(calls) {
            end(acquire(key).await);
        }
        (thread_time() - start).as_secs_f64() * 1e9 / calls as f64
    }))
}
