//! What is asked of the other processes, and what they say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lock_core::{Fence, LockKey, Request};

use crate::key_file::Hears;
use crate::map::{Bed, Map};
use crate::page::Bell;
use crate::record::Discipline;
use crate::slots::Numbers;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) key: &'a LockKey,
    pub(crate) request: &'a Request,
}

/// What the other processes say.
#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Entry),
    Contended,
    /// Others hold it in a mode that can never take turns with this one.
    Conflict(Discipline),
}

/// What a holder has.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) fence: Fence,
    pub(crate) slots: Numbers,
    pub(crate) since: SystemTime,
}

/// What a process waits for, since it was refused.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) bell: Bell,
    /// The bell's word before it asked.
    pub(super) seen: u32,
    pub(super) map: Option<Arc<Map>>,
}

impl Waits {
    /// Where a thread sleeps until it may be its turn.
    pub(crate) fn bed(&self, pause: Duration) -> Option<Arc<Bed>> {
        let map = Arc::clone(self.map.as_ref()?);
        let (bell, seen) = (self.bell, self.seen);
        Some(Arc::new(Bed {
            map,
            bell,
            seen,
            pause,
        }))
    }
}

/// Whether the caller waits for its turn or goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Asks once.
    None,
    /// Takes the turn and keeps it, and waits to hear.
    Waits { hears: Hears, since: SystemTime },
}
