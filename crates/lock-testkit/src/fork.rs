//! Children made by `fork` alone, as a pre-forking server makes its workers.
//!
//! The one module with `unsafe`: no safe crate offers a fork without an exec, for good reason. The
//! child runs on the one thread that called, among copies of locks that other threads may have
//! held, and must not wait for any of these. That this library's calls do not is what is under test.

use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::{Failure, Outcome};

/// How long a child lives if nobody ends it.
pub(crate) const LIFE_SECONDS: u32 = 120;

/// What a child exits with that panicked.
const PANICKED: i32 = 1;

/// A child. Dropping this leaves it to itself: it ends with its work, or after two minutes.
#[derive(Debug)]
pub struct Forked {
    pid: Pid,
    /// What it panicked with.
    last_words: std::io::PipeReader,
}

impl Forked {
    /// Runs `child` in a process of its own, which ends with it and runs nothing else.
    ///
    /// # Errors
    /// When the operating system refuses a pipe or a process.
    #[expect(unsafe_code, reason = "no safe crate offers fork, alarm and _exit")]
    pub fn start(child: impl FnOnce()) -> Outcome<Self> {
        let (last_words, mut writer) = std::io::pipe()?;
        // SAFETY: the child runs `child` on copies of the parent's memory, and leaves by `_exit`;
        // the C library makes its allocator usable after a fork.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: has no preconditions.
            unsafe { libc::alarm(LIFE_SECONDS) };
            let ended = catch_unwind(AssertUnwindSafe(child));
            let code = ended.map_or_else(
                |panic| {
                    // A parent that does not listen is no reason to stay.
                    let _ = writer.write_all(text_of(&*panic).as_bytes());
                    PANICKED
                },
                |()| 0,
            );
            // SAFETY: ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
        match Pid::from_raw(pid.max(0)) {
            Some(pid) => Ok(Self { pid, last_words }),
            None => Err(std::io::Error::last_os_error().into()),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Unless its work returned: with what it panicked with, or how it ended.
    ///
    /// # Blocking
    /// For as long as the child lives.
    pub fn join(mut self) -> Outcome {
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::empty())? else {
            return Err(Failure::new("nobody waits without an answer"));
        };
        match status.exit_status() {
            Some(0) => Ok(()),
            Some(PANICKED) => {
                // One read: others may have copies of the pipe's other end, which never close it.
                let mut words = [0; 4096];
                let length = self.last_words.read(&mut words)?;
                let words = String::from_utf8_lossy(&words[..length]);
                Err(Failure::new(format!("the child panicked: {words}")))
            }
            _ => Err(Failure::new(format!("the child ended with {status:?}"))),
        }
    }
}

/// Short enough for a pipe that nobody reads yet.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a text");
    text.chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_how_it_ended() {
        Forked::start(|| {}).unwrap().join().unwrap();
        let failed = Forked::start(|| assert_eq!(1 + 1, 3)).unwrap();
        let told = failed.join().unwrap_err();
        assert!(told.message().contains("left: 2"), "{told}");
        let killed = Forked::start(|| std::process::abort()).unwrap();
        let told = killed.join().unwrap_err();
        assert!(told.message().contains("the child ended"), "{told}");
    }
}
