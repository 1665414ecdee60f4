#![doc = include_str!("../README.md")]

mod backend;
mod fairness;
mod keyed;
mod sync;
mod table;
mod versioned;

pub use backend::{OneKey, ThreadingBackend};
pub use fairness::Fairness;
pub use keyed::{AcquireKey, AcquireKeyWith, KeyGuard, KeyOptions, KeyedLocks, OwnedKeyGuard};
pub use versioned::{Draft, Snapshot, Versioned};
