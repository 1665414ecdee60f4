//! Hearing that another process gave something back.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use inotify::Watch;

/// What happened to a watched key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stirred {
    /// Somebody gave something back.
    Woken,
    /// A file was closed, perhaps by the death of its process.
    Closed,
}

/// Elsewhere nothing is reported, and waiters poll.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
pub(crate) enum Watch {}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Watch {
    pub(crate) fn on(_names: &crate::names::Names) -> Option<Self> {
        None
    }

    pub(crate) async fn stirred(&self) -> Stirred {
        match *self {}
    }
}
