//! Defects to be switched on, so that the checks against them can be seen to fail.

/// A defect of the protocol that real lock clients or servers have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plant {
    /// Server: an acquire that is sent again after a lost reply waits for itself.
    AcquireNotIdempotent,
    /// Server: a release frees the key whoever holds it.
    ReleaseWithoutOwnerCheck,
    /// Server: renewing a lease that is gone makes a new one.
    RenewalRecreates,
    /// Server: a claim of an offer that was passed on is granted all the same.
    LapsedOfferGranted,
    /// Server: an offer that nobody claims stays for ever.
    OffersNeverLapse,
    /// Server: fencing bases are a counter, which starts anew with an empty store.
    FenceResetsOnRestart,
    /// Server: fencing bases are the bare clock, also when that goes back.
    FenceFollowsClock,
    /// Server: what an older connection of a client sent still takes effect after a newer one said
    /// hello.
    OldConnectionHeard,
    /// Client: the deadline counts from the reply.
    DeadlineFromReply,
    /// Client: an offer is taken for a lease without a claim.
    OfferWithoutClaim,
    /// Client: a pushed offer goes to any waiter of that key, unclaimed.
    OfferByKey,
    /// Client: abandoning an attempt only forgets it here.
    CancelLostOnDrop,
    /// Client: a cancel is sent once, and not again when it is not confirmed.
    CancelSentOnce,
    /// Client: what a request brought back that was overtaken by its cancel is left there.
    OvertakenLeft,
    /// Client: after a reconnect an attempt that was abandoned is asked for again, and left there.
    AbandonedAskedAgain,
    /// Client: a waiter relies on the push alone.
    NoSafetyNet,
    /// Client: after a reconnect nobody looks whether the leases are still there.
    HoldersNotRevalidated,
}

impl Plant {
    /// Every one of them.
    pub const ALL: [Self; 17] = [
        Self::AcquireNotIdempotent,
        Self::ReleaseWithoutOwnerCheck,
        Self::RenewalRecreates,
        Self::LapsedOfferGranted,
        Self::OffersNeverLapse,
        Self::FenceResetsOnRestart,
        Self::FenceFollowsClock,
        Self::OldConnectionHeard,
        Self::DeadlineFromReply,
        Self::OfferWithoutClaim,
        Self::OfferByKey,
        Self::CancelLostOnDrop,
        Self::CancelSentOnce,
        Self::OvertakenLeft,
        Self::AbandonedAskedAgain,
        Self::NoSafetyNet,
        Self::HoldersNotRevalidated,
    ];
}
