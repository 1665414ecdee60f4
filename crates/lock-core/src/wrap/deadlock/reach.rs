//! The quick look: most waits close no cycle, and that has to be cheap to see.

use super::state::{State, WaitId};

impl State {
    /// Whether the owner of a wait may be among those that the wait is for, directly or over
    /// others. If not, it closes no cycle. If so, the [reduction](super::reduction) tells.
    ///
    /// It follows every holder of a key, whatever the modes, and of the queues only what leads
    /// elsewhere: whoever waits for this key alone stands in nobody's way who is not kept out by
    /// the holders anyway.
    pub(super) fn may_close_a_cycle(&mut self, wait: WaitId) -> bool {
        self.search += 1;
        let start = &self.waits[wait];
        let owner = start.owner;
        let agenda = &mut self.agenda;
        agenda.clear();
        let mut next = Some(start.queue);
        while let Some(id) = next.take().or_else(|| agenda.pop()) {
            let queue = &mut self.queues[id];
            if queue.seen == self.search {
                continue;
            }
            queue.seen = self.search;
            let mut is_reached = false;
            queue.place.each_owner(|holder| {
                is_reached |= holder == owner;
                for (_, queue) in self.owners.get(&holder).into_iter().flatten() {
                    agenda.extend(next.replace(*queue));
                }
            });
            if is_reached {
                return true;
            }
            if self.further == 0 {
                continue;
            }
            for ahead in queue.line.values().filter(|ahead| **ahead != wait) {
                let ahead = &self.waits[*ahead];
                if ahead.owner == owner {
                    return true;
                }
                let waits = &self.owners[&ahead.owner];
                if waits.len() > 1 {
                    agenda.extend(waits.iter().map(|(_, queue)| *queue));
                }
            }
        }
        false
    }
}
