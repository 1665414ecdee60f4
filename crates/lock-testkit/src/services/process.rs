//! A server as a child process.

mod nursery;

use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, Outcome};

/// A running server. Killed and reaped on drop; killed by the kernel when this process ends without
/// dropping it (on Linux).
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    /// Starts it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(command: Command) -> Outcome<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        match nursery::spawn(command) {
            Ok(child) => Ok(Self { child }),
            Err(error) => Err(Failure::new(format!("{program} did not start: {error}"))),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// `SIGSTOP`: connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop(&self) -> Outcome {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`, the end of [`stop`](Self::stop).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Outcome {
        self.signal(Signal::CONT)
    }

    /// `SIGKILL`, also while stopped; returns when it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    ///
    /// # Blocking
    /// Until the kernel has taken it down.
    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that has ended already needs no ending.
        let _ = self.kill();
    }
}
