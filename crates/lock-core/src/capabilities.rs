//! What a backend declares about itself, for the conformance suite to verify.

use std::fmt;

/// How far exclusion reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Tasks and threads of one process.
    Process,
    /// Processes of one host.
    Host,
    /// Every host that reaches the same service.
    Network,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Host => "host",
            Self::Network => "network",
        })
    }
}

/// What keeps a grant alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// The holding process: its memory, or a kernel lock. Ends when the process ends, never before.
    KernelHeld,
    /// A lease of its own, renewed per grant.
    PerGrant,
    /// One lease for all grants of a process.
    PerSession,
}

/// How far the order of waiters (priority, then first come first served) reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// Among all waiters of the key, wherever they are.
    Global,
    /// Among the waiters of one process; processes compete with a bounded worst wait.
    PerProcess,
}

/// How long the fencing tokens of a key keep rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FencingLife {
    /// As long as the process lives.
    Process,
    /// As long as the store's data lives.
    Store,
    /// As long as the server's clock does not go back.
    ServerClock,
}

/// Where a detached lock can be attached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DetachReach {
    /// Only in the process that took it.
    Process,
    /// Wherever the backend can be reached.
    Anywhere,
}

/// What a backend can do.
///
/// Each thing declared is tested by the conformance suite; each thing not declared must be refused
/// with [`Unsupported`](crate::ErrorKind::Unsupported), which is tested too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend's name: `threading`, `file`, `redis` …
    pub name: &'static str,
    /// How far exclusion reaches.
    pub scope: Scope,
    /// What keeps a grant alive.
    pub lease: LeaseKind,
    /// How far the order of waiters reaches.
    pub ordering: Ordering,
    /// How long fencing tokens keep rising.
    pub fencing: FencingLife,
    /// [`Mode::Shared`](crate::Mode::Shared) is granted.
    pub shared: bool,
    /// [`Mode::Permit`](crate::Mode::Permit) is granted.
    pub permits: bool,
    /// An exclusive holder can become a shared one without a gap.
    pub downgrade: bool,
    /// Several keys can be taken in one atomic step.
    pub acquire_many: bool,
    /// A holder can be broken from outside, and notices.
    pub break_lock: bool,
    /// A key can be kept closed for a while after an unclean loss.
    pub lock_delay: bool,
    /// Where a detached lock can be attached again.
    pub detach: DetachReach,
    /// Whether a stated owner may acquire what it holds; see
    /// [`Reentrant`](crate::wrap::Reentrant). No backend does it by itself.
    pub reentry: bool,
}

impl Capabilities {
    /// A backend that grants exclusive locks and can do nothing else; switch the rest on.
    pub fn new(name: &'static str, scope: Scope, lease: LeaseKind) -> Self {
        Self {
            name,
            scope,
            lease,
            ordering: Ordering::PerProcess,
            fencing: FencingLife::Process,
            shared: false,
            permits: false,
            downgrade: false,
            acquire_many: false,
            break_lock: false,
            lock_delay: false,
            detach: DetachReach::Process,
            reentry: false,
        }
    }
}
