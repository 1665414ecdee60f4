//! A thread that waits for its turn listens to the socket itself: its wake-up makes no detour over
//! the I/O thread, which listens as well.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lock_core::parking::Parking;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::office::Office;

/// What one waiting thread sleeps on.
#[derive(Debug)]
pub(crate) struct Ear {
    /// Weak, for a thread may keep this value longer than its wait.
    office: Weak<Office>,
    /// Rung for what comes otherwise than by the socket.
    bell: UnixDatagram,
    ringer: UnixDatagram,
}

impl Ear {
    /// `None`: there is nothing to listen to.
    pub(crate) fn new(office: &Arc<Office>) -> Option<Arc<Self>> {
        office.mailbox()?;
        let (bell, ringer) = UnixDatagram::pair().ok()?;
        bell.set_nonblocking(true).ok()?;
        ringer.set_nonblocking(true).ok()?;
        Some(Arc::new(Self {
            office: Arc::downgrade(office),
            bell,
            ringer,
        }))
    }
}

impl Parking for Ear {
    fn park(&self, limit: Option<Duration>) {
        let office = self.office.upgrade();
        // Every letter wakes all who listen, so one thread does, for all others.
        let listener = office.as_ref().map(|office| office.listener().try_lock());
        let mailbox = office.as_ref().and_then(|office| office.mailbox());
        let (Some(office), Some(Ok(listener)), Some(mailbox)) = (&office, listener, mailbox) else {
            return match limit {
                None => std::thread::park(),
                Some(limit) => std::thread::park_timeout(limit),
            };
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut ready = [
            PollFd::new(mailbox.socket(), PollFlags::IN),
            PollFd::new(&self.bell, PollFlags::IN),
        ];
        // It may be interrupted by a signal, or for no reason.
        let _ = poll(&mut ready, limit.as_ref());
        if !ready[1].revents().is_empty() {
            while self.bell.recv(&mut [0]).is_ok() {}
        }
        // Invariant: reads after it has left the seat, for the I/O thread reads nothing before.
        drop(listener);
        let _ = office.read_mail(|datagram| mailbox.socket().recv(datagram));
    }

    fn unpark(&self) {
        // A bell that is full of rings is rung as well.
        let _ = self.ringer.send(&[1]);
    }
}
