//! The settings of deadlock detection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is done about owners that wait for each other, among the locks of one manager.
///
/// ```toml
/// [deadlock]
/// detect = true
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadlockConfig {
    /// Refuses the acquire that would close a cycle of stated owners, whatever the backends and
    /// modes, before it waits, and reports cycles of inferred ones. Default: false.
    pub detect: bool,
    /// Reports, the first time that both orders are seen, classes of keys that are acquired while
    /// holding each other. A class is all names up to the first `/`. Costs a few hundred nanoseconds
    /// for each hold. Default: false.
    pub report_order: bool,
    /// Reports holds that take longer than this, with owner and acquire site. Needs `detect`.
    /// Default: none are reported.
    #[serde(
        with = "lock_core::duration_text::positive",
        skip_serializing_if = "Option::is_none"
    )]
    pub report_held_longer_than: Option<Duration>,
    /// Counts acquires that ask to be [reentrant](lock_core::AcquireOptions::reentrant), instead of
    /// refusing them. Default: false.
    pub reentrant: bool,
}

impl DeadlockConfig {
    /// What contradicts itself.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.report_held_longer_than.is_some() && !self.detect {
            return Err(
                "`report_held_longer_than` does nothing without `detect`; write `detect = true`",
            );
        }
        Ok(())
    }
}
