#![doc = include_str!("../README.md")]

mod backend;
mod table;
mod versioned;

pub use backend::ThreadingBackend;
pub use versioned::{Draft, Snapshot, Versioned};
