//! Telling another process at once: a datagram to its socket.
//!
//! A datagram only says what the database says already, so one that is lost costs a wait until the
//! receiver looks by itself. Sockets lie in the directory of sessions, which is one user's alone.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use lock_core::fork::InheritedDescriptor;
use lock_core::{Fence, FencingNumber, ReadVersion, Slot};
use rustix::fs::{Mode, OFlags};

use crate::news::{Claim, Item};
use crate::session::socket_of;

/// One letter: what happened (1 byte), to which attempt, its number or slot, the end of its lease
/// (8 bytes each).
const LETTER_LEN: usize = 25;
/// Letters in one datagram.
const MOST_LETTERS: usize = 80;

const EXCLUSIVE: u8 = 1;
const SHARED: u8 = 2;
const PERMIT: u8 = 3;
const REVOKED: u8 = 4;

/// This process's socket.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Dropped before the descriptors.
    _in_child: [InheritedDescriptor; 2],
    socket: UnixDatagram,
    directory: Directory,
}

/// The directory of the sockets, by a name that fits the 108 bytes of a socket's address.
#[derive(Debug)]
struct Directory {
    name: PathBuf,
    descriptor: OwnedFd,
}

impl Directory {
    fn open(path: &Path) -> std::io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let name = {
            use std::os::fd::AsRawFd as _;
            PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
        };
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let name = path.to_owned();
        Ok(Self { name, descriptor })
    }
}

impl Mailbox {
    /// Opens the socket of a session.
    pub(crate) fn open(directory: &Path, session: i64) -> std::io::Result<Self> {
        let directory = Directory::open(directory)?;
        let socket = UnixDatagram::bind(directory.name.join(socket_of(session)))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            _in_child: [
                InheritedDescriptor::close_in_child(socket.as_fd()),
                InheritedDescriptor::close_in_child(directory.descriptor.as_fd()),
            ],
            socket,
            directory,
        })
    }

    /// Never blocks.
    pub(crate) fn socket(&self) -> &UnixDatagram {
        &self.socket
    }

    /// A second descriptor of the socket, to receive by.
    pub(crate) fn receiver(&self) -> std::io::Result<(InheritedDescriptor, UnixDatagram)> {
        let receiver = self.socket.try_clone()?;
        Ok((
            InheritedDescriptor::close_in_child(receiver.as_fd()),
            receiver,
        ))
    }

    /// Sends news to another session. Says whether they are on their way.
    pub(crate) fn send(&self, session: i64, letters: &[(u64, Item)]) -> bool {
        let to = self.directory.name.join(socket_of(session));
        letters.chunks(MOST_LETTERS).all(|letters| {
            let mut datagram = Vec::with_capacity(letters.len() * LETTER_LEN);
            for letter in letters {
                write(&mut datagram, *letter);
            }
            match self.socket.send_to(&datagram, &to) {
                Ok(_) => true,
                Err(error) => {
                    tracing::debug!(session, %error, "a wake-up was not sent");
                    // Its process is gone; others find that out by themselves.
                    error.kind() != std::io::ErrorKind::WouldBlock
                }
            }
        })
    }
}

fn write(datagram: &mut Vec<u8>, (attempt, item): (u64, Item)) {
    let (what, value, expires) = match item {
        Item::Revoked => (REVOKED, 0, None),
        Item::Granted(Claim { fence, expires }) => match fence {
            Fence::Exclusive(number) => (EXCLUSIVE, number.base(), expires),
            Fence::Shared(version) => {
                let base = version.map_or(0, |version| version.0.base());
                (SHARED, base, expires)
            }
            Fence::Permit(slot) => (PERMIT, u64::from(slot.0), expires),
        },
    };
    datagram.push(what);
    for number in [attempt, value, expires.unwrap_or(0)] {
        datagram.extend_from_slice(&number.to_le_bytes());
    }
}

/// The letters of a datagram. What is none is left out.
pub(crate) fn read(datagram: &[u8]) -> impl Iterator<Item = (u64, Item)> {
    datagram.chunks_exact(LETTER_LEN).filter_map(|letter| {
        let number = |at: usize| {
            let bytes = letter.get(1 + at * 8..9 + at * 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (attempt, value, expires) = (number(0)?, number(1)?, number(2)?);
        let fence = match letter[0] {
            EXCLUSIVE => Fence::Exclusive(FencingNumber::from_base(value)?),
            SHARED => Fence::Shared(Some(ReadVersion(FencingNumber::from_base(value)?))),
            PERMIT => Fence::Permit(Slot(u32::try_from(value).ok()?)),
            REVOKED => return Some((attempt, Item::Revoked)),
            _ => return None,
        };
        let expires = (expires > 0).then_some(expires);
        Some((attempt, Item::Granted(Claim { fence, expires })))
    })
}

/// The longest datagram.
pub(crate) const LONGEST: usize = MOST_LETTERS * LETTER_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_read_back_and_rubbish_is_left_out() {
        let number = FencingNumber::from_base(7).unwrap();
        let claim = |fence, expires| Item::Granted(Claim { fence, expires });
        let letters = [
            (1, claim(Fence::Exclusive(number), None)),
            (2, claim(Fence::Shared(Some(ReadVersion(number))), Some(9))),
            (u64::MAX, claim(Fence::Permit(Slot(3)), None)),
            (4, Item::Revoked),
        ];
        let mut datagram = Vec::new();
        for letter in letters {
            write(&mut datagram, letter);
        }
        assert_eq!(read(&datagram).collect::<Vec<_>>(), letters);
        datagram[0] = 99;
        datagram.truncate(datagram.len() - 1);
        assert_eq!(read(&datagram).collect::<Vec<_>>(), letters[1..3]);
        assert_eq!(read(b"x").count(), 0);
    }
}
