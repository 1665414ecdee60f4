//! Reporting holds that take long.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::graph::Known;
use super::place::{Holder, Place};
use crate::clock::Instant;
use crate::fork::ForkLocal;
use crate::{OwnerToken, runtime};

/// A look costs a visit to every key in use, so they are not more frequent than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Starts to look at all holders, several times within `limit`, until the graph is gone. Nobody
/// writes down when a hold began: the watch knows when it saw it first.
pub(super) fn watch(graph: Weak<ForkLocal<Known>>, limit: Duration) {
    let pause = (limit / 8).max(SHORTEST_PAUSE);
    runtime::handle().spawn(async move {
        let mut seen = HashMap::new();
        loop {
            tokio::time::sleep(pause).await;
            let Some(graph) = graph.upgrade() else {
                return;
            };
            let places = graph.get_or_init(Known::default).all_places();
            look(&places, limit, &mut seen);
        }
    });
}

struct Seen {
    since: Instant,
    reported: bool,
    /// The look that saw it last.
    last: Instant,
}

fn look(places: &[Arc<Place>], limit: Duration, seen: &mut HashMap<OwnerToken, Seen>) {
    let now = Instant::now();
    let mut stalled: Vec<(&Place, Holder)> = Vec::new();
    for place in places {
        place.each_holder(|holder| {
            let entry = seen.entry(holder.attempt).or_insert(Seen {
                since: now,
                reported: false,
                last: now,
            });
            entry.last = now;
            if !entry.reported && now.saturating_duration_since(entry.since) >= limit {
                entry.reported = true;
                stalled.push((place, *holder));
            }
        });
    }
    seen.retain(|_, entry| entry.last == now);
    for (place, holder) in stalled {
        let site = holder.site.map(ToString::to_string);
        tracing::warn!(
            key = %place.key,
            owner = %holder.owner,
            mode = %holder.mode,
            site = site.as_deref().unwrap_or("unknown"),
            is_waited_for = place.queue().is_some(),
            "a lock is held longer than {limit:?}"
        );
    }
}
