//! Reporting locks that are taken in both orders.

mod book;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Change, Grant, InspectPage, InspectQuery, LockBackend, LockKey, OwnerId,
    OwnerToken, Released, Renewal, Renewed, Request, Result, Step, Wait,
};
pub use book::{Inversion, OrderBook, OrderStep};

/// Reports, the first time that both orders are seen, that keys of two classes are acquired in
/// either order while holding the other. That is a deadlock waiting for its day, also if nothing has
/// ever hung.
///
/// The class of a key is its namespace and the part of its name before the first `/`: `orders/42`
/// and `orders/7` are one. The order within a class is not looked at. Longer cycles of classes are
/// reported like those of two.
///
/// ```
/// # use std::sync::Arc;
/// # use lock_core::LockBackend;
/// use lock_core::wrap::{LockOrder, OrderBook};
///
/// # fn example(memory: Arc<dyn LockBackend>, files: Arc<dyn LockBackend>) {
/// let book = OrderBook::new();
/// let memory = LockOrder::new(memory, book.clone());
/// let files = LockOrder::new(files, book.clone());
/// // … later …
/// for inversion in book.inversions() {
///     println!("{inversion}");
/// }
/// # }
/// ```
///
/// One attempt without waiting is in nobody's way and counts as a hold only. Without a
/// [stated owner](crate::AcquireOptions::owner) the running task or thread is the owner, so what branches of one
/// `join!` hold at the same time looks nested.
///
/// # Cost
/// One mutex, taken when an acquire starts, when it is granted and when it is released: a few hundred
/// nanoseconds for each hold.
#[derive(Debug)]
pub struct LockOrder {
    inner: Arc<dyn LockBackend>,
    book: OrderBook,
}

impl LockOrder {
    /// Watches `inner`, and compares with everything else that is written into the book.
    #[must_use]
    pub fn new(inner: Arc<dyn LockBackend>, book: OrderBook) -> Self {
        Self { inner, book }
    }
}

#[async_trait]
impl LockBackend for LockOrder {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
        let owner = owner_of(request);
        if request.wait != Wait::Now {
            self.book.asks(owner, key, request.site);
        }
        let (book, key_held) = (self.book.clone(), key.clone());
        self.inner.acquire(key, request).map(move |outcome| {
            if let Ok(Some(grant)) = &outcome {
                book.holds(owner, &key_held, grant.attempt);
            }
            outcome
        })
    }

    fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
        self.book.ends(grant.attempt);
        self.inner.release(key, grant)
    }

    fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
        self.book.ends(attempt);
        self.inner.abandon(key, attempt);
    }

    fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
        let (book, key_held, attempt) = (self.book.clone(), key.clone(), grant.attempt);
        self.inner.alter(key, grant, change).map(move |outcome| {
            if outcome.is_ok() {
                match change {
                    Change::Downgrade => {}
                    Change::Detach => book.ends(attempt),
                    Change::Transfer(owner) => {
                        book.ends(attempt);
                        book.holds(owner, &key_held, attempt);
                    }
                    Change::Attach { owner, .. } => {
                        let owner = owner.unwrap_or_else(OwnerId::current);
                        book.holds(owner, &key_held, attempt);
                    }
                }
            }
            outcome
        })
    }

    async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
        self.inner.renew(batch).await
    }

    fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
        let book = self.book.clone();
        let asked: Vec<_> = wanted
            .iter()
            .map(|(key, request)| (key.clone(), owner_of(request)))
            .collect();
        self.inner.acquire_many(wanted).map(move |outcome| {
            if let Ok(Some(grants)) = &outcome {
                for ((key, owner), grant) in asked.iter().zip(grants) {
                    book.holds(*owner, key, grant.attempt);
                }
            }
            outcome
        })
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

fn owner_of(request: &Request) -> OwnerId {
    request.owner.unwrap_or_else(OwnerId::current)
}
