//! A child that has a copy of a guard, and drops it.

use std::fs::File;
use std::io::Read as _;

use lock_core::LockGuard;

use crate::Outcome;
use crate::fork::Forked;

/// A guard that parent and child will both have.
pub(super) struct Copied<'a> {
    pub(super) guard: Option<LockGuard>,
    /// Keeps it in the parent.
    pub(super) put_back: Box<dyn FnOnce(LockGuard) + Send + 'a>,
}

/// Makes a child that drops its copy of the guard and then lives on. Returns once it has dropped it.
pub(super) fn plain_child(copied: Copied<'_>) -> Outcome<u32> {
    let Copied {
        mut guard,
        put_back,
    } = copied;
    let (mut reader, mut writer) = std::io::pipe()?;
    let child = Forked::start(|| {
        drop(guard.take());
        outlive(&mut writer).unwrap_or_else(|error| panic!("it cannot stay: {error}"));
        loop {
            std::thread::park();
        }
    })?;
    drop(writer);
    if let Some(guard) = guard {
        put_back(guard);
    }
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(child.pid())
}

/// Tells the parent, and lets go of the parent's standard input and output: an open copy would hide
/// its end from the first process.
fn outlive(parent: &mut impl std::io::Write) -> std::io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    parent.write_all(&[1])
}
