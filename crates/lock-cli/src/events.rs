//! All that can happen while a lock is waited for or held, in one queue.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;

use lock_core::LossReason;
use lock_core::clock::Instant;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use crate::exit;
use crate::failure::Failure;

/// The signals that end a wait, and are passed on to a command that runs.
const SIGNALS: [i32; 6] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The acquire may be ready.
    Ready,
    /// A signal came in.
    Signal(Signal),
    /// The command has ended.
    Ended,
    /// The lock is lost.
    Lost(LossReason),
}

/// A signal that somebody sent to lockctl.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    /// Which one.
    pub(crate) number: i32,
    /// Whether the terminal sent it, and so sent it to the whole foreground process group.
    pub(crate) from_terminal: bool,
}

/// The queue of events.
#[derive(Debug)]
pub(crate) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Starts to take signals. Those that were ignored when lockctl started stay ignored, as
    /// `nohup` and background jobs of a shell want it.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel();
        let ignored = ignored_signals();
        let wanted = SIGNALS.iter().filter(|signal| !is_in(ignored, **signal));
        let signals = SignalsInfo::<WithOrigin>::new(wanted);
        let mut signals = signals.map_err(|error| {
            Failure::new(exit::INTERNAL, "cannot take signals").caused_by(&error)
        })?;
        let queue = sender.clone();
        let spawned = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for origin in signals.forever() {
                    let signal = Signal {
                        number: origin.signal,
                        from_terminal: matches!(origin.cause, Cause::Kernel),
                    };
                    if queue.send(Event::Signal(signal)).is_err() {
                        return;
                    }
                }
            });
        spawned.map_err(|error| {
            Failure::new(exit::INTERNAL, "cannot start a thread for signals").caused_by(&error)
        })?;
        Ok(Self { sender, receiver })
    }

    /// A way to put events into the queue from other threads.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event; `None` once `deadline` has passed.
    ///
    /// # Blocking
    /// Until something happens.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else {
            // Invariant: `self.sender` keeps the channel open.
            return self.receiver.recv().ok();
        };
        loop {
            match self.receiver.recv_timeout(deadline.remaining()) {
                Ok(event) => return Some(event),
                // The channel's clock stops in suspend, the deadline's does not.
                Err(RecvTimeoutError::Timeout) if !deadline.has_passed() => {}
                Err(_) => return None,
            }
        }
    }
}

/// The mask of the signals that this process ignores; zero where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

fn ignored_in(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let mask =
            ignored_in("Name:\tlockctl\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n");
        assert!(is_in(mask, SIGHUP));
        assert!(!is_in(mask, SIGTERM));
        assert_eq!(ignored_in("Name:\tlockctl\n"), 0);
    }
}
