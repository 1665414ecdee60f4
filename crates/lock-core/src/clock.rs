//! The one clock: monotonic, and running through suspend where the system has such a clock.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point on the clock that leases, deadlines and hold times are measured by.
///
/// On Linux this is `CLOCK_BOOTTIME`: a laptop that slept past its lease notices. Elsewhere it is
/// the monotonic clock. Values of two processes on one host compare; values of two hosts do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Nanoseconds since boot. One word, for deadlines are moved with every acquire.
    nanos: u64,
}

impl Instant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(CLOCK);
        // The clock starts at boot, so neither part can be negative.
        Self::from_nanos(now.tv_sec as u64 * NANOS_PER_SECOND + now.tv_nsec as u64)
    }

    /// The point `nanos` nanoseconds after boot: the inverse of [`as_nanos`](Self::as_nanos).
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// Nanoseconds since boot. A `u64` holds 584 years of them.
    pub fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// How long ago `earlier` was, zero if it lies ahead.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// How long until this point, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.saturating_duration_since(Self::now())
    }

    /// Whether this point has been reached.
    pub fn has_passed(self) -> bool {
        Self::now() >= self
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time: a deadline that far away is no deadline.
    fn add(self, after: Duration) -> Self {
        Self::from_nanos(self.nanos.saturating_add(nanos(after)))
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at boot.
    fn sub(self, before: Duration) -> Self {
        Self::from_nanos(self.nanos.saturating_sub(nanos(before)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The wall clock as the system last updated it, a few milliseconds ago at most: for records that
/// people read, at a quarter of the price.
#[must_use]
pub fn coarse_wall_time() -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_nanos(coarse_wall_nanos())
}

/// The same in nanoseconds since 1970.
#[must_use]
pub fn coarse_wall_nanos() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        now.tv_sec.max(0) as u64 * NANOS_PER_SECOND + now.tv_nsec as u64
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    nanos(std::time::UNIX_EPOCH.elapsed().unwrap_or_default())
}
