//! A second process on the same store: this program again, told what to do line by line.

mod fork;
mod message;
mod served;

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{LockKey, Mode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

pub use message::{Act, Answer, Ask};
pub(crate) use served::serve;

use crate::context::Context;
use crate::{Failure, Kit, Outcome};

/// Set for a second process: the spec of the store to open.
const ROLE: &str = "LOCKTEST_SECOND_PROCESS";

/// A second process that holds and waits for locks of the same store. Killed and reaped on drop.
///
/// Only a program whose `main` is [`lock_testkit::main`](crate::main) can be one.
pub struct Agent {
    child: Child,
    commands: Mutex<ChildStdin>,
    open: Arc<Open>,
    next: AtomicU64,
    /// Children of the second process that outlive it.
    orphans: Mutex<Vec<u32>>,
}

/// Questions without an answer so far; `None` once the process is gone.
type Open = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;

impl Agent {
    /// Starts this program again, as a second process on the kit's store.
    ///
    /// # Errors
    /// When the store reaches no second process, or the program cannot be started.
    pub fn spawn(kit: &dyn Kit) -> Outcome<Self> {
        let spec = kit.spec().map_err(Failure::new)?;
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("the second process has no pipes"));
        };
        let open: Arc<Open> = Arc::new(Mutex::new(Some(HashMap::new())));
        let listening = Arc::clone(&open);
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines() {
                let Ok(line) = line else { break };
                let Ok((id, answer)) = serde_json::from_str::<(u64, Answer)>(&line) else {
                    continue;
                };
                let asked = lock(&listening).as_mut().and_then(|open| open.remove(&id));
                if let Some(asked) = asked {
                    // Nobody may be waiting for this answer any more.
                    let _ = asked.send(answer);
                }
            }
            lock(&listening).take();
        });
        Ok(Self {
            child,
            commands: Mutex::new(commands),
            open,
            next: AtomicU64::new(0),
            orphans: Mutex::default(),
        })
    }

    /// Sends a question now; await what is returned for the answer.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn ask(&self, ask: &Ask) -> Outcome<Pending> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match lock(&self.open).as_mut() {
            Some(open) => open.insert(id, sender),
            None => return Err(Failure::new("the second process is gone")),
        };
        let mut line = serde_json::to_vec(&(id, ask))?;
        line.push(b'\n');
        lock(&self.commands).write_all(&line)?;
        Ok(Pending(receiver))
    }

    /// Sends a question and waits for the answer.
    ///
    /// # Errors
    /// When the process is gone, or answers with an error.
    ///
    /// # Cancel safety
    /// The question stays asked.
    pub async fn call(&self, ask: &Ask) -> Outcome<Answer> {
        self.ask(ask)?.answer().await
    }

    /// Acquires `key` under the name `hold`, waiting without a limit. Returns the fencing number.
    ///
    /// # Errors
    /// As [`call`](Self::call), and when it is not granted.
    ///
    /// # Cancel safety
    /// The acquire goes on in the other process.
    pub async fn acquire(
        &self,
        hold: &str,
        key: &LockKey,
        mode: Mode,
        ttl: Option<Duration>,
    ) -> Outcome<Option<u64>> {
        match self.call(&Ask::acquire(hold, key, mode).ttl(ttl)).await? {
            Answer::Granted { fencing } => Ok(fencing),
            other => Err(Failure::new(format!("asked to acquire, got {other:?}"))),
        }
    }

    /// Makes it wait for `key`, and returns once it is queued.
    pub(crate) async fn wait_in_line(
        &self,
        hold: &str,
        key: &LockKey,
        mode: Mode,
        context: &Context,
    ) -> Outcome<Pending> {
        let pending = self.ask(&Ask::acquire(hold, key, mode).ttl(context.lease_life()))?;
        let key = key.qualified().to_owned();
        let count = Ask::on(Act::Waiters { key }, "");
        context
            .eventually("the second process is queued", async || {
                Ok(matches!(self.call(&count).await?, Answer::Count(1..)))
            })
            .await?;
        Ok(pending)
    }

    /// Makes it fork a plain child that outlives it and drops its copy of the guard of `hold`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// The child is made all the same, and ends by itself after two minutes.
    pub async fn fork_child(&self, hold: &str) -> Outcome<u32> {
        let ask = Ask::on(Act::Fork, hold);
        self.child_of(&ask).await
    }

    /// Makes it start a program that outlives it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// The child is made all the same, and ends by itself after two minutes.
    pub async fn exec_child(&self) -> Outcome<u32> {
        self.child_of(&Ask::on(Act::Exec, "")).await
    }

    async fn child_of(&self, ask: &Ask) -> Outcome<u32> {
        match self.call(ask).await? {
            Answer::Child(pid) => {
                lock(&self.orphans).push(pid);
                Ok(pid)
            }
            other => Err(Failure::new(format!("asked for a child, got {other:?}"))),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with `SIGKILL`, and reaps it.
    ///
    /// # Errors
    /// When it is not ours to kill.
    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it cannot be waited for.
    ///
    /// # Blocking
    /// Until then.
    pub fn wait(&mut self) -> Outcome {
        self.child.wait()?;
        Ok(())
    }

    /// Stops it with `SIGSTOP`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stop(&self) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    /// Lets it go on after [`stop`](Self::stop).
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }
}

/// An answer to come.
#[derive(Debug)]
#[must_use = "await the answer"]
pub struct Pending(oneshot::Receiver<Answer>);

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When the process is gone, or answers with an error.
    ///
    /// # Cancel safety
    /// The answer is lost.
    pub async fn answer(self) -> Outcome<Answer> {
        match self.0.await {
            Ok(Answer::Failed(message)) => Err(Failure::new(message)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Failure::new("the second process is gone")),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Whatever is gone already needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for &pid in lock(&self.orphans).iter() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("pid", &self.child.id())
            .finish_non_exhaustive()
    }
}

/// The store that this process was started for as a second process.
pub(crate) fn spec_of_this_process() -> Option<String> {
    std::env::var(ROLE).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
