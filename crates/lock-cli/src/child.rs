//! The command that runs under the lock: started, supervised, and stopped when the lock is lost.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{LockGuard, LossReason};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as Kill, WaitId, WaitIdOptions, getpgid, getpgrp, kill_process, kill_process_group,
    waitid,
};

use crate::events::{Event, Events, Signal};
use crate::exit;
use crate::failure::Failure;

/// A command that runs under a lock.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    pid: Pid,
    group: bool,
}

/// How a supervised command ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// How the command itself ended.
    pub(crate) status: ExitStatus,
    /// Why it was stopped, if the lock was lost before it ended.
    pub(crate) lost: Option<LossReason>,
}

impl Supervised {
    /// Starts the command; with `group`, in a process group of its own.
    ///
    /// Locks are not inherited: every descriptor of a backend closes at the `exec`.
    pub(crate) fn start(mut command: Command, group: bool) -> Result<Self, Failure> {
        if group {
            command.process_group(0);
        }
        die_with_us(&mut command);
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            Failure::new(exit::of_spawn(&error), format!("cannot run `{program}`"))
                .caused_by(&error)
        })?;
        Ok(Self {
            pid: Pid::from_child(&child),
            child,
            group,
        })
    }

    /// Waits for the command to end. Meanwhile passes signals on, and stops it when the lock is
    /// lost: SIGTERM first, SIGKILL after `kill_after`.
    ///
    /// # Blocking
    /// Until the command has ended.
    pub(crate) fn watch(
        mut self,
        guard: &LockGuard,
        events: &Events,
        kill_after: Duration,
    ) -> Result<Ended, Failure> {
        self.announce_end(events)?;
        let queue = events.sender();
        guard.lost().on_lost(move |reason| {
            // Nobody listens any more when the command has ended.
            let _ = queue.send(Event::Lost(reason));
        });
        let mut lost = None;
        let mut kill_at = None;
        loop {
            match events.next(kill_at) {
                Some(Event::Signal(signal)) => self.pass_on(signal),
                Some(Event::Lost(reason)) if lost.is_none() => {
                    lost = Some(reason);
                    self.send(Kill::TERM);
                    // A stopped process would sleep over the signal.
                    self.send(Kill::CONT);
                    kill_at = Some(Instant::now() + kill_after);
                }
                Some(Event::Ended) => break,
                Some(Event::Ready | Event::Lost(_)) => {}
                None => {
                    self.send(Kill::KILL);
                    kill_at = None;
                }
            }
        }
        if lost.is_some() && self.group {
            // What the command left behind in its group must not outlive the lock either.
            self.send(Kill::KILL);
        }
        let status = self.child.wait().map_err(|error| wait_failed(&error))?;
        Ok(Ended { status, lost })
    }

    /// Puts [`Event::Ended`] into the queue when the command has ended.
    ///
    // Invariant: the thread leaves the zombie to `watch`, so the pid belongs to the command as long
    // as signals may be sent to it.
    fn announce_end(&self, events: &Events) -> Result<(), Failure> {
        let (pid, queue) = (self.pid, events.sender());
        let wait = move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            let _ = queue.send(Event::Ended);
        };
        let spawned = thread::Builder::new().name("wait".into()).spawn(wait);
        spawned.map(drop).map_err(|error| {
            self.send(Kill::KILL);
            wait_failed(&error)
        })
    }

    fn pass_on(&self, signal: Signal) {
        // Ctrl-C reaches the whole foreground group: passing it on would deliver it twice, and many
        // programs take the second one for "at once".
        if signal.from_terminal && getpgid(Some(self.pid)).is_ok_and(|group| group == getpgrp()) {
            return;
        }
        if let Some(signal) = Kill::from_named_raw(signal.number) {
            self.send(signal);
        }
    }

    fn send(&self, signal: Kill) {
        // It may have ended in between: then there is nothing to tell it.
        let _ = if self.group {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
    }
}

fn wait_failed(error: &std::io::Error) -> Failure {
    Failure::new(exit::INTERNAL, "cannot wait for the command").caused_by(error)
}

/// Makes the kernel kill the command when lockctl dies, for with us dies the lock. SIGKILL, as
/// nobody would be left to follow a SIGTERM up.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Kill::KILL))?;
        // If the parent died before the request, the signal will never come.
        if getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "no safe crate asks for a death signal in a child"
    )]
    // SAFETY: the closure runs between fork and exec. It makes two system calls and touches no
    // memory but its own captured number: no allocation, no lock.
    unsafe {
        command.pre_exec(ask);
    }
}

/// Elsewhere the system has no such request: the command lives on without the lock.
#[cfg(not(target_os = "linux"))]
fn die_with_us(_command: &mut Command) {}
