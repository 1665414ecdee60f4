//! Whether a manager still grants, and who waits for its guards to come back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lock_core::fork::ForkLocal;
use tokio::sync::Notify;

/// Open until the shutdown begins.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    signals: ForkLocal<Signals>,
}

#[derive(Debug, Default)]
struct Signals {
    closed: Notify,
    left: Notify,
}

impl Gate {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Closes the gate and ends every [`closing`](Self::closing).
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.signals().closed.notify_waiters();
    }

    /// Waits until the gate is closed.
    pub(crate) async fn closing(self: Arc<Self>) {
        let mut closed = pin!(self.signals().closed.notified());
        closed.as_mut().enable();
        if !self.is_closed() {
            closed.await;
        }
    }

    /// Tells a shutdown that an attempt has ended. Costs one load otherwise.
    pub(crate) fn left(&self) {
        if self.is_closed() {
            self.signals().left.notify_waiters();
        }
    }

    /// Waits until `done` says so; it is asked now and after every end of an attempt.
    pub(crate) async fn wait_until(&self, done: impl Fn() -> bool) {
        loop {
            let mut left = pin!(self.signals().left.notified());
            left.as_mut().enable();
            if done() {
                return;
            }
            left.await;
        }
    }

    fn signals(&self) -> &Signals {
        self.signals.get_or_init(Signals::default)
    }
}
