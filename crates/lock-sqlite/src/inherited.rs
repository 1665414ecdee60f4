//! Connections that a forked child inherits.
//!
//! SQLite keeps books for each file that a process has open. A child's own connection would rely on
//! the locks that those say the parent's has, and that the kernel did not pass on. So a child first
//! closes what it inherited. It can: forks wait while a connection is at work, see
//! [`undisturbed`](lock_core::fork::undisturbed).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use lock_core::fork;

use crate::database::Database;

/// A connection, until it is closed.
pub(crate) type Engine = Mutex<Option<Database>>;

/// All connections of this process, and the fork generation they were opened in.
// Invariant: locked only where forks wait.
static OPEN: Mutex<Vec<(u64, Weak<Engine>)>> = Mutex::new(Vec::new());

/// Enters a connection, for children to find.
pub(crate) fn register(engine: &Arc<Engine>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(_, engine)| engine.strong_count() > 0);
    open.push((fork::generation(), Arc::downgrade(engine)));
}

/// Closes what was opened before a fork.
pub(crate) fn close() {
    let generation = fork::generation();
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(opened_in, engine)| {
        if *opened_in == generation {
            return true;
        }
        if let Some(engine) = engine.upgrade() {
            let taken = engine.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(database) = taken {
                database.close_inherited();
            }
            // The parent's value, whose drop would do more than that.
            std::mem::forget(engine);
        }
        false
    });
}
