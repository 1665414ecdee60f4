//! The server's clock, as far as this process can know it.

use std::time::Duration;

use lock_core::clock::Instant;

/// How much two clocks may drift apart, in parts: 0.1 %.
const DRIFT: u64 = 1000;
/// An exchange that is older than this says nothing any more.
const STALE: Duration = Duration::from_secs(120);

/// Maps times of the server to the local clock, within a bound that every exchange renews.
///
/// An answer that says "it is S" was given after its request was sent. So the local time of S is not
/// before the sending, and that of a later G not before the sending plus G − S, less what the clocks
/// drift apart meanwhile. That makes a deadline that counts from G safe, however late the push that
/// tells of G arrives.
///
/// Should the server's clock be set ahead between the exchange and G, the mapped time would lie in
/// the future when the push arrives, and is not given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerClock {
    best: Option<Exchange>,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    sent: Instant,
    /// Microseconds of the server.
    server: u64,
}

impl ServerClock {
    /// Learns from an answer.
    pub(crate) fn learn(&mut self, sent: Instant, server: u64) {
        let newer = Exchange { sent, server };
        // Kept is what bounds best now: usually the newer one, unless it was long under way.
        let keep = self.best.is_some_and(|best| {
            server >= best.server
                && best
                    .map(server)
                    .is_some_and(|mapped| mapped > sent && !is_ahead(mapped))
        });
        if !keep {
            self.best = Some(newer);
        }
    }

    /// Not after the local time at which the server's clock read `server`. `None` when that cannot
    /// be said.
    pub(crate) fn map(&self, server: u64) -> Option<Instant> {
        let mapped = self.best?.map(server)?;
        (!is_ahead(mapped)).then_some(mapped)
    }
}

impl Exchange {
    fn map(self, server: u64) -> Option<Instant> {
        let since = Duration::from_micros(server.checked_sub(self.server)?);
        if since > STALE {
            return None;
        }
        let drift = Duration::from_micros(since.as_micros() as u64 / DRIFT);
        Some(self.sent + since - drift)
    }
}

fn is_ahead(instant: Instant) -> bool {
    instant > Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_counts_from_when_the_server_made_it() {
        let start = Instant::now() - Duration::from_secs(10);
        let mut clock = ServerClock::default();
        assert_eq!(clock.map(5), None);
        clock.learn(start, 1_000_000);
        let mapped = clock.map(3_000_000).unwrap();
        assert!(mapped <= start + Duration::from_secs(2));
        assert!(mapped >= start + Duration::from_millis(1990));
    }

    #[test]
    fn a_slow_exchange_does_not_push_out_a_quick_one() {
        let start = Instant::now() - Duration::from_secs(10);
        let mut clock = ServerClock::default();
        clock.learn(start, 1_000_000);
        // Sent at the same time, answered a second later by the server's clock.
        clock.learn(start, 2_000_000);
        assert!(clock.map(3_000_000).unwrap() > start + Duration::from_millis(1900));
        // A better one replaces it.
        clock.learn(start + Duration::from_secs(3), 4_000_000);
        let mapped = clock.map(4_000_000).unwrap();
        assert_eq!(mapped, start + Duration::from_secs(3));
    }

    #[test]
    fn a_server_clock_that_jumped_ahead_is_not_believed() {
        let mut clock = ServerClock::default();
        clock.learn(Instant::now(), 1_000_000);
        assert_eq!(clock.map(1_000_000 + 60_000_000), None);
        // It is learned anew.
        clock.learn(Instant::now(), 61_000_000);
        assert!(clock.map(61_000_000).is_some());
    }

    #[test]
    fn a_server_clock_that_was_set_back_is_learned_anew() {
        let mut clock = ServerClock::default();
        clock.learn(Instant::now() - Duration::from_secs(1), 50_000_000);
        assert_eq!(clock.map(1_000_000), None);
        clock.learn(Instant::now(), 1_000_000);
        assert!(clock.map(1_000_000).is_some());
    }
}
