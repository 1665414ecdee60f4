//! The highest revision of the store that was seen, and what follows when it goes back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use lock_core::ErrorKind;

use crate::error::{Failure, error};

/// Fencing numbers are revisions, so a store whose revision went back would give old ones anew.
#[derive(Debug, Default)]
pub(crate) struct Revisions {
    highest: AtomicI64,
    /// From where to where it went back.
    went_back: OnceLock<(i64, i64)>,
}

impl Revisions {
    pub(crate) fn highest(&self) -> i64 {
        self.highest.load(Ordering::Acquire)
    }

    /// A read or an event told of a revision.
    pub(crate) fn saw(&self, revision: i64) {
        self.highest.fetch_max(revision, Ordering::AcqRel);
    }

    /// A write was answered at `revision`; it was sent when `seen` was the highest.
    pub(super) fn wrote(&self, seen: i64, revision: i64) -> Result<(), Failure> {
        if revision < seen {
            tracing::error!(
                from = seen,
                to = revision,
                "the revision of etcd's data went back: it was wiped or restored"
            );
            let _ = self.went_back.set((seen, revision));
            return self.check();
        }
        self.saw(revision);
        Ok(())
    }

    pub(super) fn went_back(&self) -> bool {
        self.went_back.get().is_some()
    }

    /// Refuses to go on with a store whose revision went back.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.went_back.get() {
            None => Ok(()),
            Some((from, to)) => Err(Failure::lasting(error(
                ErrorKind::Backend,
                format!(
                    "the data was wiped or restored (its revision went from {from} to {to}), so \
                     fencing tokens would go back; raise `fencing_epoch` and restart every process"
                ),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_goes_back_ends_all_writing() {
        let revisions = Revisions::default();
        assert!(revisions.wrote(0, 7).is_ok());
        // Sent before the other one was answered.
        assert!(revisions.wrote(5, 6).is_ok());
        assert_eq!(revisions.highest(), 7);
        assert!(revisions.wrote(7, 3).is_err());
        assert!(revisions.check().is_err());
    }
}
