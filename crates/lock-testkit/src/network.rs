//! A backend like a network one, without a network: a store that is reached only by messages, and
//! every fault that messages have.
//!
//! It exists to prove that the contract of `lock-core` carries such backends, and that the checks
//! made of them can fail: each [`Plant`] is a defect that real lock clients have had, to be switched
//! on and caught. It is no backend for a program: the [`Server`] lives and dies with its process.
//!
//! The protocol is the one that a real store needs. An acquire is idempotent by its attempt. A
//! hand-over is a short *offer*, pushed to the waiter, and becomes a lease by a *claim*, so that its
//! deadline counts from before a request was sent. A push may be lost: waiters ask again now and
//! then. What was abandoned is cancelled until the server confirms it. A new connection silences the
//! older ones of its client, so that nothing they sent takes effect late.

mod backend;
mod calls;
mod driver;
mod faults;
mod plant;
mod pledges;
mod server;
mod store;
mod wire;

pub use backend::{NetworkBackend, NetworkConfig};
pub use faults::{Fate, Leg};
pub use plant::Plant;
pub use server::{Keep, Server, ServerConfig};
pub use wire::{ClientId, Kind};
