//! The thread that starts all servers.
//!
//! Linux ends a child on its parent's death only if it was asked to, and takes the *thread* that
//! forked for the parent. Threads of tests come and go; this one stays as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};

type Birth = (Command, mpsc::Sender<io::Result<Child>>);

pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    static NURSERY: OnceLock<mpsc::Sender<Birth>> = OnceLock::new();
    die_with_the_parent(&mut command);
    let nursery = NURSERY.get_or_init(|| {
        let (sender, births) = mpsc::channel::<Birth>();
        std::thread::spawn(move || {
            for (mut command, answer) in births {
                // Nobody to tell means that the caller's thread has panicked; the child is reaped
                // with the process.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, born) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts servers is gone");
    nursery
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts servers is gone"))?;
    born.recv().map_err(gone)?
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe crate asks for the signal in the child")]
fn die_with_the_parent(command: &mut Command) {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt as _;

    let parent = std::process::id();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the question.
        let orphaned = getppid().is_none_or(|now| now.as_raw_pid() as u32 != parent);
        if orphaned {
            return Err(io::Error::other("the parent is gone"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates only when it fails.
    unsafe {
        command.pre_exec(ask);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_the_parent(_command: &mut Command) {}
