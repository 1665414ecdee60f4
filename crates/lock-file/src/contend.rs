//! Competing with other processes for one key.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Shared;
use crate::entry::KeyCell;
use lock_core::host::{Stirred, Watch};

/// How often to look again, and how soon, after a process may have died: the kernel reports that
/// its files were closed just before it gives up the locks on them.
const SECOND_LOOKS: u32 = 5;
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(1);

/// Where changes are not reported, waiters look by themselves, less and less often.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LAST_POLL: Duration = Duration::from_millis(25);

/// Competes for the head of a key's queue until nobody waits. One task for all waiters of the key
/// in this process, and no thread.
pub(crate) async fn contend(shared: Arc<Shared>, cell: Arc<KeyCell>) {
    let names = cell.state().kernel().names().clone();
    // Watched before the first look, so that nothing can happen between the two.
    let watch = Watch::on(&names.watched());
    let mut poll = match watch {
        Some(_) => shared.backup_poll,
        None => FIRST_POLL,
    };
    let mut second_looks = 0;
    loop {
        let (aftermath, goes_on) = {
            let mut state = cell.state();
            let aftermath = state.pump(cell.key());
            (aftermath, state.needs_task())
        };
        // This is the task that it may ask for.
        aftermath.run();
        if !goes_on {
            return;
        }
        let pause = if second_looks > 0 {
            second_looks -= 1;
            SECOND_LOOK_AFTER
        } else {
            poll
        };
        match &watch {
            Some(watch) => {
                if let Ok(Stirred::Closed) = tokio::time::timeout(pause, watch.stirred()).await {
                    second_looks = SECOND_LOOKS;
                }
            }
            None => {
                tokio::time::sleep(pause).await;
                poll = (poll * 2).min(LAST_POLL.min(shared.backup_poll.max(FIRST_POLL)));
            }
        }
    }
}
