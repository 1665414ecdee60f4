//! The cases, one file for each section of the guarantees.

mod cancel;
mod composite;
mod contention;
mod crash;
mod exclusive;
mod fencing;
mod hygiene;
mod inspect;
mod lease;
mod names;
mod options;
mod order;
mod permits;
mod shared;
mod wrapped;

use crate::case::Case;

/// All cases, section by section.
pub(crate) fn cases() -> Vec<Case> {
    [
        exclusive::cases(),
        cancel::cases(),
        contention::cases(),
        names::cases(),
        order::cases(),
        shared::cases(),
        permits::cases(),
        lease::cases(),
        crash::cases(),
        fencing::cases(),
        composite::cases(),
        options::cases(),
        inspect::cases(),
        wrapped::cases(),
        hygiene::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
