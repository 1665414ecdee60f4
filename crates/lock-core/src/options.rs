//! How a caller wants to acquire.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::{
    Anchor, Error, ErrorKind, LockBackend, Mode, OwnerId, OwnerOrigin, OwnerToken, Reentry,
    Request, Result, Wait,
};

/// How to acquire: mode, wait limit, priority, lease and record. Every option has a default.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{AcquireOptions, Mode};
///
/// let options = AcquireOptions::new()
///     .mode(Mode::Shared)
///     .wait_limit(Duration::from_secs(5))
///     .priority(10)
///     .label("nightly report");
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[repr(C)]
pub struct AcquireOptions {
    // What each acquire looks at comes first.
    wait: WaitLimit,
    owner: Option<OwnerId>,
    mode: Mode,
    priority: i8,
    ttl: Option<Duration>,
    label: Option<Arc<str>>,
    record: Option<Arc<[u8]>>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) hold_at_least: Option<Duration>,
    lock_delay: Option<Duration>,
    reentry: Reentry,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WaitLimit {
    #[default]
    None,
    For(Duration),
    Until(Instant),
}

impl AcquireOptions {
    /// The longest record, in bytes.
    pub const MAX_RECORD_LEN: usize = 1024;

    /// Exclusive, waiting without a limit, priority 0, no label.
    pub fn new() -> Self {
        Self::default()
    }

    /// How to hold the key. Default: [`Mode::Exclusive`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How long to wait, counted from the acquire. Zero is one attempt. Default: no limit.
    pub fn wait_limit(mut self, limit: Duration) -> Self {
        self.wait = WaitLimit::For(limit);
        self
    }

    /// Until when to wait. Default: no limit.
    pub fn wait_until(mut self, deadline: Instant) -> Self {
        self.wait = WaitLimit::Until(deadline);
        self
    }

    /// Waits without a limit, which is the default.
    pub fn wait_forever(mut self) -> Self {
        self.wait = WaitLimit::None;
        self
    }

    /// Higher goes first; first come first served within one priority. Default: 0.
    ///
    /// A waiter that has been bypassed 64 times goes to the front whatever its priority.
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    /// The life of the lease between renewals. Default: the backend's, usually 30 s. A backend
    /// without leases answers `Unsupported`.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Who acquires, for deadlock detection. Default: the running task or thread is inferred.
    pub fn owner(mut self, owner: OwnerId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// A line for people who ask who holds the lock. Default: none.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Opaque bytes kept with the holder's record, at most 1,024. Default: none.
    pub fn record(mut self, record: impl Into<Arc<[u8]>>) -> Self {
        self.record = Some(record.into());
        self
    }

    /// Gives the lock up, as lost, when the guard is held longer than this: bounds a wedged or
    /// forgotten holder. Default: no bound.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.max_hold = Some(limit);
        self
    }

    /// Keeps the lock at least this long, also when the guard is released earlier, while this
    /// process lives: a short periodic job then does not run twice in one period. Default: zero.
    pub fn hold_at_least(mut self, duration: Duration) -> Self {
        self.hold_at_least = Some(duration);
        self
    }

    /// Keeps the key closed this long after an unclean loss, so that a paused holder's last writes
    /// settle. Default: none. A backend that cannot do it answers `Unsupported`.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = Some(delay);
        self
    }

    /// Lets the stated owner acquire what it holds: that is counted, and released with the last
    /// guard. Default: it would wait for itself.
    ///
    /// The acquire fails with `InvalidConfig` if no [owner](Self::owner) is stated, and with
    /// `Unsupported` where nobody counts: see [`Reentrant`](crate::wrap::Reentrant).
    pub fn reentrant(mut self) -> Self {
        self.reentry = Reentry::Counted;
        self
    }

    /// The owner, if one was stated.
    pub(crate) fn stated_owner(&self) -> Option<OwnerId> {
        self.owner
    }

    /// The mode that will be asked for.
    pub fn requested_mode(&self) -> Mode {
        self.mode
    }

    /// Turns the wait limit into a deadline, so that several acquires can share it.
    pub fn with_fixed_deadline(mut self) -> Self {
        if let WaitLimit::For(limit) = self.wait
            && !limit.is_zero()
        {
            self.wait = WaitLimit::Until(Instant::now() + limit);
        }
        self
    }

    /// The deadline of the wait limit, counted from now.
    #[inline]
    pub(crate) fn wait(&self) -> Wait {
        match self.wait {
            WaitLimit::None => Wait::Forever,
            WaitLimit::For(limit) => Wait::at_most(limit),
            WaitLimit::Until(deadline) => Wait::Until(deadline),
        }
    }

    /// The request of one new attempt.
    ///
    /// # Errors
    /// `InvalidConfig` for a record over [`MAX_RECORD_LEN`](Self::MAX_RECORD_LEN), and for a
    /// `hold_at_least` over `max_hold`.
    pub fn to_request(&self, wait: Wait) -> Result<Request> {
        self.check()?;
        Ok(self.request(wait, None, Anchor::None))
    }

    /// Refuses what the backend cannot count, besides what contradicts itself.
    #[inline]
    pub(crate) fn check_for(&self, backend: &dyn LockBackend) -> Result<()> {
        self.check()?;
        if self.reentry == Reentry::Counted && !backend.capabilities().reentry {
            let name = backend.capabilities().name;
            return Err(Error::unsupported(
                name,
                "reentrant acquires: wrap it in Reentrant, or set `deadlock.reentrant`",
            ));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        let counts = self.reentry == Reentry::Counted;
        if self.record.is_none() && self.hold_at_least.is_none() && !counts {
            return Ok(());
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<()> {
        if let Some(record) = &self.record
            && record.len() > Self::MAX_RECORD_LEN
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the record has {} bytes, {} fit",
                    record.len(),
                    Self::MAX_RECORD_LEN
                ),
            ));
        }
        let owner = self.owner.map(OwnerId::origin);
        if self.reentry == Reentry::Counted && owner != Some(OwnerOrigin::Explicit) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a reentrant acquire has no stated owner; pass one made by OwnerId::new",
            ));
        }
        if let (Some(least), Some(most)) = (self.hold_at_least, self.max_hold)
            && least > most
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("hold_at_least {least:?} is longer than max_hold {most:?}; shorten it"),
            ));
        }
        Ok(())
    }

    /// Whether the owner is all that a request says, and nothing outlives the acquire.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = Self {
            wait: self.wait,
            owner: self.owner,
            ..Self::default()
        };
        *self == plain
    }

    /// The request of one new attempt, unchecked.
    #[inline]
    pub(crate) fn request(
        &self,
        wait: Wait,
        site: Option<&'static Location<'static>>,
        anchor: Anchor,
    ) -> Request {
        Request {
            attempt: OwnerToken::mint(),
            mode: self.mode,
            wait,
            priority: self.priority,
            ttl: self.ttl,
            owner: self.owner,
            label: self.label.clone(),
            record: self.record.clone(),
            lock_delay: self.lock_delay,
            site,
            anchor,
            reentry: self.reentry,
        }
    }
}
