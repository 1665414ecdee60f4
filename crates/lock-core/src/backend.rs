//! The contract of a backend.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::clock::Instant;
use crate::{
    Capabilities, Error, Fence, FencingNumber, InspectPage, InspectQuery, LockKey, Mode, OwnerId,
    OwnerToken, PlainRequest, Request, Result, Step, Validity,
};

/// What implements locks: in memory, in files, on a server.
///
/// Users never call it; they hold a [`Lock`](crate::Lock). Every method but one is required, so that
/// the compiler itself makes a wrapper forward all of them.
///
/// # Contract
///
/// **Attempts.** Each acquire carries an [`OwnerToken`] of its own. Whoever mints the token ends the
/// attempt: with [`release`](Self::release), or with [`abandon`](Self::abandon) if no grant came
/// back or the release was cut short. `Ok(None)` also ends it. A wrapper that mints no token
/// forwards the one it was given. Acquiring again under the same token while it is alive gives the
/// same grant.
///
/// **A pending attempt belongs to the backend**, not to the caller's future: dropping the future of a
/// step changes nothing but who listens. Only `abandon` ends the attempt, and an abandoned attempt
/// is never granted afterwards, also over reconnects and retries.
///
/// **Steps are lazy.** A waiting step queues and sends nothing before its first poll, so that a
/// wrapper which finds a deadlock can drop it unpolled.
///
/// **Time.** [`Request::wait`] is enforced by the caller, except that [`Wait::Now`](crate::Wait::Now)
/// must not wait. A [`Grant`]'s deadline is computed from before the request was sent.
///
/// **Locks inside.** No waker, callback or drop of a user's value runs under a lock of the backend.
///
/// **Fork.** State sits in [`ForkLocal`](crate::fork::ForkLocal): a child starts anew, and ending an
/// attempt of the parent there does nothing.
#[async_trait]
pub trait LockBackend: Debug + Send + Sync + 'static {
    /// What this backend can do; the same at every call.
    fn capabilities(&self) -> Capabilities;

    /// Asks for `key`. `Ok(None)` means contended, and answers only [`Wait::Now`](crate::Wait::Now).
    ///
    /// # Errors
    /// `ModeConflict`, `Unavailable`, `PermissionDenied`, `Unsupported`, `Closed`, `Backend`; never
    /// `Indeterminate`: an attempt in doubt is the backend's to clean up.
    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>>;

    /// Holds `key` at once, if nobody is near, for a request that says no more than who asks: the
    /// shortest way to a grant that cannot be lost while the process lives. `None` changes nothing
    /// and says nothing; the caller then calls [`acquire`](Self::acquire).
    ///
    /// The one method with a default, which is safe: a wrapper that does not forward it sees every
    /// acquire in `acquire`. It leaves no hold behind when it panics.
    #[inline]
    fn acquire_plain(&self, _key: &LockKey, _request: &PlainRequest) -> Option<FencingNumber> {
        None
    }

    /// Gives a grant back and says whether it was still ours. Idempotent; never frees another
    /// attempt's grant.
    ///
    /// # Errors
    /// `Indeterminate` when the reply did not come, `Unavailable` when nothing was sent. The caller
    /// then abandons the attempt, and the backend goes on trying.
    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>>;

    /// Ends an attempt in any state: queued, in flight, granted, or long over.
    ///
    /// This is what `Drop` calls: it is synchronous, idempotent, never blocks on I/O, never panics,
    /// and needs no ambient runtime. What cannot be done at once becomes a debt that the backend
    /// keeps paying and shows in [`inspect`](Self::inspect).
    fn abandon(&self, key: &LockKey, attempt: OwnerToken);

    /// Changes a grant in place, without giving it up.
    ///
    /// # Errors
    /// `Unsupported` for a change that is not declared, `Lost` when the grant is no longer ours.
    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>>;

    /// Renews leases: one outcome for each, in order. Never re-creates a lease that is gone.
    ///
    /// Backends whose grants live by the process answer `Unsupported`.
    ///
    /// # Errors
    /// For the whole batch, when it is unknown which leases were renewed.
    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>>;

    /// Takes several keys in one atomic step, all or nothing; `Ok(None)` means that one of them is
    /// contended. Asked with [`Wait::Now`](crate::Wait::Now) only: whoever has to wait takes the
    /// keys one by one, in order.
    ///
    /// # Errors
    /// `Unsupported` where [`Capabilities::acquire_many`] is false; the caller then takes the keys
    /// one by one in order.
    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>>;

    /// Reports holders, waiters and debts, by key or by namespace, a page at a time.
    ///
    /// # Errors
    /// `Unavailable`, `PermissionDenied`.
    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage>;

    /// Takes the lock away from every holder of `key`, or from one attempt, for an operator. The
    /// holders hear of it through their loss signal. Returns how many were broken.
    ///
    /// # Errors
    /// `Unsupported` where [`Capabilities::break_lock`] is false.
    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize>;

    /// Stops granting, and gives up what this backend still has queued. Grants that are held stay
    /// with their guards. Idempotent.
    ///
    /// # Errors
    /// `Indeterminate` when debts could not be paid.
    async fn close(&self) -> Result<()>;
}

/// A lock that a backend has granted, in plain values.
///
/// Only this crate builds a guard of it, bound to the outermost wrapper; so wrappers compose, and
/// one remote grant can serve many local guards.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The attempt that was granted.
    pub attempt: OwnerToken,
    /// What the resource can check.
    pub fence: Fence,
    /// Deadline and loss signal; `None` for a grant that cannot be lost while the process lives.
    pub validity: Option<Validity>,
}

/// Whether a release found the lock still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Released {
    /// It was ours until now.
    Released,
    /// It had been lost before; nothing was changed.
    AlreadyLost,
}

/// A change to a grant that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Exclusive to shared, letting in the shared waiters at the head, without a gap.
    Downgrade,
    /// The grant now belongs to another owner.
    Transfer(OwnerId),
    /// Stop renewing here: the grant lives on by its lease, or by the process.
    Detach,
    /// Take a detached grant over: verify that it is still held, and renew it from here.
    Attach {
        /// Who takes it over; `None` for the running task or thread.
        owner: Option<OwnerId>,
        /// How it is held, as whoever detached it knew.
        mode: Mode,
    },
}

/// One lease to renew.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// A key held under the lease.
    pub key: LockKey,
    /// The lease, from [`LeaseTerms::id`](crate::LeaseTerms::id).
    pub lease: OwnerToken,
    /// Its new life.
    pub ttl: std::time::Duration,
}

/// What became of one lease in a batch.
#[derive(Clone, Debug)]
pub enum Renewed {
    /// It lives on until this deadline, computed from before the renewal was sent.
    Until(Instant),
    /// It is gone, and was not re-created.
    Lost,
    /// Not this time; it may still be alive.
    Failed(Error),
}
