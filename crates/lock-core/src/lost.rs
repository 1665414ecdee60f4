//! The signal that a lock was lost.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::blocking::may_park;
use crate::clock::Instant;
use crate::parking::ParkedThread;
use crate::{LossReason, Validity, runtime};

/// The signal that a lock was lost: a future, a blocking wait, or a callback.
///
/// Never fires for a plain release, and outlives the guard it came from. A lock that cannot be lost
/// (in-process, say) has a signal that never fires.
#[derive(Debug)]
#[must_use = "a loss signal does nothing unless awaited or given a callback"]
pub struct Lost {
    validity: Option<Validity>,
    /// The place of the waker that this future left behind; taken back when it is dropped.
    place: Option<u64>,
    /// Rings when the lease ends: nobody may look after one that was leaked or detached.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Lost {
    pub(crate) fn of(validity: Validity) -> Self {
        Self {
            validity: Some(validity),
            place: None,
            alarm: None,
        }
    }

    /// The signal of a lock that cannot be lost.
    pub(crate) fn never() -> Self {
        Self {
            validity: None,
            place: None,
            alarm: None,
        }
    }

    /// Why the lock is lost, if it is.
    pub fn reason(&self) -> Option<LossReason> {
        self.validity.as_ref()?.loss()
    }

    /// Waits until the lock is lost or `limit` has passed; `None` means it is not lost.
    ///
    /// # Blocking
    /// Parks the calling thread. Do not call it on a thread that runs async tasks.
    ///
    /// # Panics
    /// When it would park the lock I/O thread, in a waker that runs there.
    #[expect(clippy::panic, reason = "documented under # Panics")]
    pub fn wait_for(&self, limit: Duration) -> Option<LossReason> {
        let until = Instant::now() + limit;
        let thread = ParkedThread::current();
        let mut signal = self.clone();
        loop {
            let signal = Pin::new(&mut signal);
            if let Poll::Ready(reason) = thread.poll(|context| signal.poll(context)) {
                return Some(reason);
            }
            if until.has_passed() {
                return None;
            }
            if let Err(error) = may_park() {
                panic!("{error}");
            }
            let expiry = self.validity.as_ref().and_then(Validity::deadline);
            let next = expiry.map_or(until, |expiry| expiry.min(until));
            thread.park(Some(next.remaining()));
        }
    }

    /// Runs `callback` once, on a thread of its own, when the lock is lost; at once if it is
    /// already. A panic in it is reported and stops nothing.
    pub fn on_lost(self, callback: impl FnOnce(LossReason) + Send + 'static) {
        let Some(validity) = &self.validity else {
            return;
        };
        if let Err((reason, callback)) = validity.call_back(callback) {
            runtime::run_apart(move || callback(reason));
        }
    }
}

impl Future for Lost {
    type Output = LossReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LossReason> {
        let Some(validity) = &self.validity else {
            return Poll::Pending;
        };
        let validity = validity.clone();
        match validity.watch(self.place, context.waker()) {
            Ok(place) => self.place = Some(place),
            Err(reason) => return Poll::Ready(reason),
        }
        loop {
            if let Some(reason) = validity.loss() {
                return Poll::Ready(reason);
            }
            let Some(deadline) = validity.deadline() else {
                return Poll::Pending;
            };
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(runtime::sleep(deadline.remaining())));
            std::task::ready!(alarm.as_mut().poll(context));
            // The lease was renewed meanwhile, or the timer is early.
            self.alarm = None;
        }
    }
}

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self {
            validity: self.validity.clone(),
            place: None,
            alarm: None,
        }
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let (Some(validity), Some(place)) = (&self.validity, self.place) {
            validity.unwatch(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_nobody_renews_is_told_when_it_ends() {
        let terms = crate::LeaseTerms {
            id: crate::OwnerToken::mint(),
            ttl: Duration::from_millis(20),
        };
        let ends = Instant::now() + terms.ttl;
        let lost = Validity::leased(terms, ends).lost();
        assert_eq!(crate::block_on(lost), LossReason::Expired);
        assert!(ends.has_passed());
    }

    #[test]
    fn a_blocked_thread_and_a_callback_hear_of_the_loss() {
        let validity = Validity::unleased();
        let (sender, receiver) = std::sync::mpsc::channel();
        validity
            .lost()
            .on_lost(move |reason| sender.send(reason).unwrap());
        let lost = validity.lost();
        let waiting = std::thread::spawn(move || lost.wait_for(Duration::from_secs(30)));
        assert!(validity.lose(LossReason::Revoked));
        assert_eq!(waiting.join().unwrap(), Some(LossReason::Revoked));
        assert_eq!(receiver.recv().unwrap(), LossReason::Revoked);
    }
}
