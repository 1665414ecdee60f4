//! Wrappers: backends that stand around another backend and add one concern.
//!
//! A wrapper is itself a [`LockBackend`](crate::LockBackend), so a [`Lock`](crate::Lock) does not
//! know how many it goes through. They mint no attempts, so they forward the ones they are given,
//! and they leave the loss signal alone, since it travels inside the grant.
//!
//! Order decides what a wrapper sees. Outermost it sees what users ask for and how long they wait
//! and hold; further in, what reaches the store:
//!
//! ```
//! use std::sync::Arc;
//! use lock_core::LockBackend;
//! use lock_core::wrap::{Counters, Deadlock, Observed};
//!
//! fn wrapped(backend: Arc<dyn LockBackend>, counters: Arc<Counters>) -> Arc<dyn LockBackend> {
//!     let safe = Arc::new(Deadlock::new(backend));
//!     // Outside, so that a refused acquire is counted as one.
//!     Arc::new(Observed::new(safe, counters))
//! }
//! ```
//!
//! [`Reentrant`] and [`LockOrder`] stand outside of [`Deadlock`].
//!
//! [`Deadlock`] stands outside whatever queues waiters of this process, because it reasons about
//! owners of this process and the order they queue in. A [`Keepalive`](crate::Keepalive) stands
//! directly around the backend whose leases it renews, below every other wrapper.

mod deadlock;
mod observed;
mod order;
mod reentrant;

pub use deadlock::{Deadlock, WaitGraph, WatchedKey};
pub use observed::{Counters, CountersSnapshot, Event, EventKind, Observed, Observer};
pub use order::{Inversion, LockOrder, OrderBook, OrderStep};
pub use reentrant::Reentrant;
