//! The contract carries wrappers that own remote grants, and ones that refuse waits.

#[path = "network/setup.rs"]
mod setup;

mod wrappers {
    pub(crate) mod cohort;
    pub(crate) mod cohort_checks;
    pub(crate) mod deadlock;
    pub(crate) mod deadlock_checks;
}
