//! Hearing that another process wrote to a file, or closed it.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use inotify::Watch;

use std::path::PathBuf;

/// A file to watch, or a directory for the files in it.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether writing to it is reported, and not only closing.
    pub writes: bool,
}

/// What happened to watched files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stirred {
    /// One was written to.
    Woken,
    /// One was closed by somebody who could write to it, perhaps by the death of its process. The
    /// kernel reports that just before it gives up the locks on the file.
    Closed,
}

/// Elsewhere nothing is reported, and waiters poll.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
pub enum Watch {}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Watch {
    /// `None`: nothing is reported here.
    pub fn on(_files: &[WatchedFile]) -> Option<Self> {
        None
    }

    /// Never called.
    pub async fn stirred(&self) -> Stirred {
        match *self {}
    }
}
