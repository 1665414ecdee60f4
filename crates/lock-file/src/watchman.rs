//! Noticing that a lock file was deleted or replaced while it was held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::backend::Shared;

/// How often held files are looked at. A lock whose file was deleted is reported lost after this
/// time at most, or when it is released.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks after the files that are held. A task that runs while there are any.
#[derive(Debug, Default)]
pub(crate) struct Watchman {
    awake: AtomicBool,
}

impl Watchman {
    /// Something is held or watched from now on.
    pub(crate) fn watch(&self, shared: &Arc<Shared>) {
        if self.awake.load(Ordering::Relaxed) {
            return;
        }
        // First, for it panics when the system refuses a thread: the next grant then tries again.
        let io = lock_core::runtime::handle();
        if !self.awake.swap(true, Ordering::AcqRel) {
            io.spawn(rounds(Arc::downgrade(shared)));
        }
    }
}

async fn rounds(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // Weak: a held guard keeps its backend, so without one there is nothing to look after.
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if !round(&shared) {
            shared.watchman().awake.store(false, Ordering::Release);
            // A grant may have come after this look, and before the watchman went to sleep.
            if round(&shared) {
                shared.watchman().watch(&shared);
            }
            return;
        }
    }
}

/// Returns whether anything is held or watched.
fn round(shared: &Arc<Shared>) -> bool {
    let mut any = false;
    for cell in shared.table().cells() {
        let (aftermath, watch) = {
            let mut state = cell.state();
            any |= state.holds() || state.is_watching();
            (state.check(cell.key()), state.stop_watching())
        };
        drop(watch);
        shared.settle(&cell, aftermath);
    }
    any
}
