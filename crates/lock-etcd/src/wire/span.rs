//! A range of keys.

use super::RangeRequest;

/// Every key from `start` up to, and without, `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Span {
    /// Every key that begins with `prefix`, which must not be empty.
    pub(crate) fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        // Names in this crate end in ASCII, so the last byte can always be raised.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start, end }
    }

    /// One key.
    pub(crate) fn key(key: Vec<u8>) -> Self {
        Self {
            start: key,
            end: Vec::new(),
        }
    }

    pub(crate) fn request(&self) -> RangeRequest {
        RangeRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            limit: 0,
        }
    }
}
