//! The settings of deadlock detection.

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
}
