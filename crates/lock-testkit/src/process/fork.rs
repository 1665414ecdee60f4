//! A child made by `fork` alone, as a pre-forking server makes its workers.
//!
//! The one module with `unsafe`: no safe crate offers a fork without an exec, for good reason. The
//! child runs on the one thread that called, among copies of locks that other threads may have
//! held. It drops one guard, which is what is under test, writes one byte, and pauses.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use lock_core::LockGuard;

use crate::{Failure, Outcome};

/// How long a child lives if nobody ends it.
pub(super) const LIFE_SECONDS: u32 = 120;

/// A guard that parent and child will both have.
pub(super) struct Copied<'a> {
    pub(super) guard: Option<LockGuard>,
    /// Keeps it in the parent.
    pub(super) put_back: Box<dyn FnOnce(LockGuard) + Send + 'a>,
}

/// Makes a child that drops its copy of the guard and then lives on. Returns once it has dropped it.
#[expect(unsafe_code, reason = "no safe crate offers fork, alarm and pause")]
pub(super) fn plain_child(copied: Copied<'_>) -> Outcome<u32> {
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: the child below calls nothing that may wait for a thread of the parent: dropping an
    // inherited guard only compares a counter and leaks, and the rest are bare system calls.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    if child == 0 {
        drop(copied.guard);
        let told = writer.write_all(&[1]).is_ok();
        // SAFETY: system calls on descriptors that this child alone has copies of. Standard input
        // and output are the parent's: an open copy would hide its end from the first process.
        unsafe {
            libc::close(0);
            libc::close(1);
            libc::close(writer.as_raw_fd());
            libc::alarm(if told { LIFE_SECONDS } else { 1 });
            loop {
                libc::pause();
            }
        }
    }
    drop(writer);
    if let Some(guard) = copied.guard {
        (copied.put_back)(guard);
    }
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    u32::try_from(child).map_err(|_| Failure::new("a child without a process id"))
}
