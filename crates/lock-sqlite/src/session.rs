//! The session of one process: a file whose kernel lock says that it lives.

use std::fs::File;
use std::path::{Path, PathBuf};

use lock_core::Result;
use lock_core::host::{LockFile, LockKind};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{error, named};

/// This process's session. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Session {
    id: i64,
    directory: PathBuf,
    file: LockFile,
}

impl Session {
    /// Begins a session. It is in the database only after that.
    pub(crate) fn begin(directory: &Path) -> Result<Self> {
        // Never 0, and never used again.
        let id = (getrandom::u64().unwrap_or_else(|_| unguessed()) >> 1).max(1) as i64;
        let mut file = LockFile::create_new(file_of(directory, id)).map_err(named)?;
        if !file.try_lock(LockKind::Exclusive).map_err(named)? {
            return Err(error(
                lock_core::ErrorKind::Backend,
                format!("a new file in {} is locked already", directory.display()),
            ));
        }
        Ok(Self {
            id,
            directory: directory.to_owned(),
            file,
        })
    }

    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// Whether others still find its file.
    pub(crate) fn is_current(&self) -> bool {
        self.file.is_current()
    }

    /// Whether a session lives. What cannot be told counts as living.
    pub(crate) fn is_alive(&self, id: i64) -> bool {
        id == self.id || is_alive(&self.directory, id)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        remove_files(&self.directory, self.id);
    }
}

/// Without randomness from the system: nonces need it too, so this is never reached in practice.
fn unguessed() -> u64 {
    lock_core::clock::Instant::now().as_nanos() ^ u64::from(std::process::id()) << 40
}

fn file_of(directory: &Path, id: i64) -> PathBuf {
    directory.join(format!("{id:016x}.session"))
}

/// The name of a session's socket.
pub(crate) fn socket_of(id: i64) -> String {
    format!("{id:016x}.socket")
}

/// Removes what a session leaves behind.
pub(crate) fn remove_files(directory: &Path, id: i64) {
    for path in [directory.join(socket_of(id)), file_of(directory, id)] {
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "left behind"),
        }
    }
}

/// Whether the kernel has a lock on the session's file. Opened for reading only, for the close of a
/// descriptor that could write would tell everybody to look.
pub(crate) fn is_alive(directory: &Path, id: i64) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(file_of(directory, id), flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT) => return false,
        Err(error) => {
            tracing::debug!(%error, "a session cannot be looked at");
            return true;
        }
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}
