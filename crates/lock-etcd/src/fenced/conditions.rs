//! What a fenced transaction asks, and what comes back.

use crate::wire::{Compare, KeyValue};

/// Something about the store that a transaction depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The key is there.
    Exists(Vec<u8>),
    /// The key is not there.
    Missing(Vec<u8>),
    /// The key is there and has this value.
    ValueIs(Vec<u8>, Vec<u8>),
    /// The key was last written at this revision, as [`EtcdEntry::modified`] tells it.
    ModifiedAt(Vec<u8>, i64),
}

/// What a key was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdEntry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision at which it was made.
    pub created: i64,
    /// The revision at which it was last written.
    pub modified: i64,
}

/// What became of a fenced transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EtcdOutcome {
    /// It was carried out, at this revision; what was read, in order.
    Committed {
        /// The revision of the store that it made.
        revision: i64,
        /// What each read found; `None` for a key that is not there.
        read: Vec<Option<EtcdEntry>>,
    },
    /// The lock is held, but a condition did not hold; nothing was changed.
    ConditionFailed,
}

impl Condition {
    pub(super) fn to_compare(&self) -> Compare {
        match self.clone() {
            Self::Exists(key) => Compare::present(key),
            Self::Missing(key) => Compare::absent(key),
            Self::ValueIs(key, value) => Compare::value_is(key, value),
            Self::ModifiedAt(key, revision) => Compare::modified_at(key, revision),
        }
    }
}

impl From<KeyValue> for EtcdEntry {
    fn from(entry: KeyValue) -> Self {
        Self {
            key: entry.key,
            value: entry.value,
            created: entry.create_revision,
            modified: entry.mod_revision,
        }
    }
}
