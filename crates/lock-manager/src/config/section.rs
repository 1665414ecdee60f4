//! Sections of backends that have no settings, or that this build does not have.

use std::fmt;

use figment::value::Dict;
use serde::{Deserialize, Serialize};

/// In-process locks: there is nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ThreadingConfig {}

/// The section of a backend that this build does not have. It is not looked into: one file can serve
/// programs with different features. Choosing the backend is an error.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnavailableSection(Dict);

impl fmt::Debug for UnavailableSection {
    /// Without the contents, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnavailableSection(..)")
    }
}
