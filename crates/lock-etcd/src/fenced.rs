//! Transactions of the user that the servers refuse once the lock is lost.

mod conditions;
mod transaction;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lock_core::{LockGuard, OwnerToken, Result, fork};

use crate::client::{Client, HoldState};
use crate::error::{NAME, error};
use crate::layout::Place;
use crate::line::Stand;
pub use conditions::{Condition, EtcdEntry, EtcdOutcome};
pub use transaction::FencedTransaction;

/// What proves a grant to the servers. It travels with the grant, through every wrapper.
pub(crate) struct Ownership {
    /// Weak, since the client has the grant.
    pub(crate) client: Weak<Client>,
    pub(crate) place: Place,
    attempt: OwnerToken,
    state: Arc<Mutex<HoldState>>,
    /// The fork generation it was made in: a child holds nothing, and touches nothing of its parent's.
    generation: u64,
}

impl Ownership {
    pub(crate) fn new(
        client: &Arc<Client>,
        place: &Place,
        attempt: OwnerToken,
        state: &Arc<Mutex<HoldState>>,
    ) -> Self {
        Self {
            client: Arc::downgrade(client),
            place: place.clone(),
            attempt,
            state: Arc::clone(state),
            generation: fork::generation(),
        }
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.generation != fork::generation()
    }

    pub(crate) fn stand(&self) -> Stand {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Stand {
            attempt: self.attempt,
            mode: state.mode,
            created: state.created,
        }
    }
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership")
            .field("stand", &self.stand())
            .finish_non_exhaustive()
    }
}

/// Transactions on the cluster that keeps the lock, for data that stands in etcd itself.
///
/// The servers carry them out only while the lock is held: what a paused holder sends late is
/// refused, without any clock. This is mutual exclusion, and not the hint that a lease is.
pub trait EtcdGuard {
    /// A transaction that is carried out only while this lock is held.
    ///
    /// # Errors
    /// `Unsupported` when the guard is not exclusive, or not of this backend.
    fn fenced_transaction(&self) -> Result<FencedTransaction<'_>>;
}

impl EtcdGuard for LockGuard {
    fn fenced_transaction(&self) -> Result<FencedTransaction<'_>> {
        let unsupported = |what: &str| {
            error(
                lock_core::ErrorKind::Unsupported,
                format!("{what}; take the lock exclusively, on the {NAME} backend"),
            )
            .with_key(self.key())
        };
        let token = self
            .fencing_token()
            .ok_or_else(|| unsupported("the guard has no fencing token"))?;
        let ownership = self
            .proof()
            .and_then(|proof| proof.downcast_ref::<Ownership>())
            .ok_or_else(|| unsupported("the guard is of another backend"))?;
        Ok(FencedTransaction::new(ownership, token))
    }
}
