use lock_core::{AcquireOptions, ErrorKind, Lock, Mode};
use lock_threading::{OneKey, ThreadingBackend};

use super::*;
use crate::of_key::CountsHolders;

/// Begins the shutdown just after it has granted.
#[derive(Debug)]
struct ClosesMeanwhile {
    inner: OneKey,
    gate: Arc<Gate>,
}

impl CountsHolders for ClosesMeanwhile {
    fn holders(&self) -> usize {
        self.inner.holders()
    }
}

#[async_trait]
impl LockBackend for ClosesMeanwhile {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let step = self.inner.acquire(key, request);
        self.gate.close();
        step
    }

    fn acquire_plain(&self, key: &LockKey, request: &PlainRequest) -> Option<FencingNumber> {
        let number = self.inner.acquire_plain(key, request);
        self.gate.close();
        number
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        self.inner.alter(key, grant, change)
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        self.inner.acquire_many(wanted)
    }

    async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
        self.inner.inspect(query).await
    }

    async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
        self.inner.break_lock(key, attempt).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[test]
fn a_grant_during_which_the_shutdown_begins_is_given_back() {
    let shared = AcquireOptions::new().mode(Mode::Shared);
    // The shortest way, and the general one.
    for options in [AcquireOptions::new(), shared] {
        let (home, key) = (Home::default(), LockKey::new("a").unwrap());
        let backend = Arc::new(ClosesMeanwhile {
            inner: ThreadingBackend::new().of_key(&key),
            gate: Arc::clone(&home.gate),
        });
        let of_key = OfKey::Any {
            backend: Arc::clone(&backend) as _,
            counts: Some(Arc::clone(&backend) as _),
        };
        let tracked = Tracked::new(key.clone(), of_key, "threading".into(), &home);
        let lock = Lock::new(tracked, key).with_options(options);
        let refused = lock.acquire().wait();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(backend.holders(), 0);
    }
}
