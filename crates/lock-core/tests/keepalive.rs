//! Leases are kept over whatever a backend does short of refusing them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::clock::Instant;
use lock_core::{
    Capabilities, Change, Fence, FencingNumber, Grant, InspectPage, InspectQuery, Keepalive,
    LeaseKind, LeaseTerms, Lock, LockBackend, LockKey, OwnerToken, Released, Renewal, Renewed,
    Request, Result, Scope, Step, Validity,
};

const TTL: Duration = Duration::from_secs(2);

/// What the first renewal does.
#[derive(Clone, Copy, Debug)]
enum First {
    Hangs,
    Panics,
    SaysNothing,
}

/// Grants everything, and renews at the second try.
#[derive(Debug)]
struct Stubborn {
    first: First,
    tries: AtomicUsize,
}

#[async_trait]
impl LockBackend for Stubborn {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("stubborn", Scope::Process, LeaseKind::PerGrant)
    }

    fn acquire(&self, _key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let terms = LeaseTerms {
            id: request.attempt,
            ttl: TTL,
        };
        Step::Ready(Ok(Some(Grant {
            attempt: request.attempt,
            fence: Fence::Exclusive(FencingNumber::from_base(1).unwrap()),
            validity: Some(Validity::leased(terms, Instant::now() + TTL)),
        })))
    }

    fn release(&self, _key: &LockKey, _grant: &Grant) -> Step<Result<Released>> {
        Step::Ready(Ok(Released::Released))
    }

    fn abandon(&self, _key: &LockKey, _attempt: OwnerToken) {}

    fn alter(&self, _key: &LockKey, grant: &Grant, _change: Change) -> Step<Result<Grant>> {
        Step::Ready(Ok(grant.clone()))
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        if self.tries.fetch_add(1, Ordering::SeqCst) == 0 {
            match self.first {
                First::Hangs => std::future::pending().await,
                First::Panics => panic!("a defect of the backend"),
                First::SaysNothing => return Ok(Vec::new()),
            }
        }
        let renewed = Renewed::Until(Instant::now() + TTL);
        Ok(batch.iter().map(|_| renewed.clone()).collect())
    }

    fn acquire_many(&self, _wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        Step::Ready(Ok(None))
    }

    async fn inspect(&self, _query: InspectQuery) -> Result<InspectPage> {
        Ok(InspectPage::default())
    }

    async fn break_lock(&self, _key: &LockKey, _attempt: Option<OwnerToken>) -> Result<usize> {
        Ok(0)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn a_lease_outlives_a_first_renewal_that(first: First) {
    let tries = AtomicUsize::new(0);
    let backend = Keepalive::new(Arc::new(Stubborn { first, tries }));
    let lock = Lock::new(Arc::new(backend), LockKey::new("key").unwrap());
    let guard = lock.acquire().wait().unwrap();
    assert_eq!(guard.lost().wait_for(TTL * 2), None, "{first:?}");
}

#[test]
fn a_renewal_that_hangs_is_tried_again_in_time() {
    a_lease_outlives_a_first_renewal_that(First::Hangs);
}

#[test]
fn a_renewal_that_panics_is_tried_again() {
    a_lease_outlives_a_first_renewal_that(First::Panics);
}

#[test]
fn a_renewal_without_an_outcome_is_tried_again() {
    a_lease_outlives_a_first_renewal_that(First::SaysNothing);
}
