#![doc = include_str!("../README.md")]

pub mod clock;
#[cfg(feature = "serde")]
pub mod duration_text;
pub mod fork;
#[cfg(unix)]
pub mod host;
pub mod parking;
pub mod runtime;
pub mod wrap;

mod acquire;
mod attempt;
mod backend;
mod blocking;
mod capabilities;
mod detached;
mod error;
mod fencing;
mod guard;
mod handoff;
mod inspect;
mod keepalive;
mod key;
mod lock;
mod lost;
mod mode;
mod options;
mod owner;
mod queue;
mod request;
mod set;
mod step;
mod validity;
mod while_held;

pub use acquire::Acquire;
pub use attempt::{OwnerToken, ProcessNonce};
pub use backend::{Change, Grant, LockBackend, Released, Renewal, Renewed};
pub use blocking::block_on;
pub use capabilities::{Capabilities, DetachReach, FencingLife, LeaseKind, Ordering, Scope};
pub use detached::Detached;
pub use error::{DeadlockEdge, Error, ErrorKind, Result};
pub use fencing::{
    Fence, FencedFile, FencedRegister, FencedTable, FencingNumber, FencingToken, ReadVersion, Slot,
    StaleToken,
};
pub use guard::LockGuard;
pub use handoff::Handoff;
pub use inspect::{InspectPage, InspectQuery, KeyReport, PartyRecord, ProcessRecord, Select};
pub use keepalive::Keepalive;
pub use key::LockKey;
pub use lock::{Lock, TryAcquire};
pub use lost::Lost;
pub use mode::{Mode, Permits};
pub use options::AcquireOptions;
pub use owner::{OwnerId, OwnerOrigin};
pub use queue::{BYPASS_LIMIT, KeyQueue, Party, Refusal, Ticket, Turn};
pub use request::{Anchor, PlainRequest, Reentry, Request, Wait};
pub use set::{GuardSet, acquire_all};
pub use step::{BoxFuture, Step};
pub use validity::{LeaseTerms, LossReason, Proof, Validity};
