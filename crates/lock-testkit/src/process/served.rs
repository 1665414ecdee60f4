//! The second process's side.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use lock_core::{
    Detached, ErrorKind, InspectQuery, Lock, LockBackend, LockGuard, LockKey, Released,
};
use tokio::runtime::Builder;

use super::message::options;
use super::{Act, Answer, Ask, fork, lock};
use crate::history::fencing_of;
use crate::{Failure, Kit, Outcome, stress};

/// Answers questions from standard input until it ends.
pub(crate) fn serve(kit: &dyn Kit, spec: &str) -> ExitCode {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let (Ok(runtime), Ok(backend)) = (runtime, kit.open(spec)) else {
        return ExitCode::FAILURE;
    };
    let served = Arc::new(Served {
        backend,
        holds: Mutex::default(),
        output: Mutex::new(std::io::stdout()),
    });
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok((id, ask)) = serde_json::from_str::<(u64, Ask)>(&line) else {
            return ExitCode::FAILURE;
        };
        let served = Arc::clone(&served);
        runtime.spawn(async move {
            let answer = match served.answer(ask).await {
                Ok(answer) => answer,
                Err(failure) => Answer::Failed(failure.to_string()),
            };
            served.say(id, &answer);
        });
    }
    // The first process is gone: nothing may outlive it, and nothing needs to be released.
    std::process::exit(0)
}

struct Served {
    backend: Arc<dyn LockBackend>,
    holds: Mutex<HashMap<String, LockGuard>>,
    output: Mutex<std::io::Stdout>,
}

impl Served {
    fn say(&self, id: u64, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(&(id, answer)) {
            line.push(b'\n');
            let mut output = lock(&self.output);
            // Without a listener there is nobody to tell.
            let _ = output.write_all(&line).and_then(|()| output.flush());
        }
    }

    async fn answer(&self, ask: Ask) -> Outcome<Answer> {
        let hold = ask.hold;
        match ask.act {
            Act::Acquire {
                key,
                mode,
                wait,
                ttl,
            } => {
                let acquire = self.lock(&key)?.acquire_with(&options(mode, wait, ttl)?);
                match acquire.await {
                    Ok(guard) => Ok(self.keep(hold, guard)),
                    Err(error) if error.kind() == ErrorKind::Timeout => Ok(Answer::Contended),
                    Err(error) => Err(error.into()),
                }
            }
            Act::Release => {
                let released = self.take(&hold)?.release().await?;
                Ok(Answer::Yes(released == Released::Released))
            }
            Act::IsHeld => {
                let holds = lock(&self.holds);
                let guard = holds.get(&hold);
                Ok(Answer::Yes(guard.is_some_and(LockGuard::is_held)))
            }
            Act::Detach => Ok(Answer::Text(self.take(&hold)?.detach().await?.to_string())),
            Act::Attach { detached } => {
                let detached: Detached = detached.parse()?;
                let lock = Lock::new(Arc::clone(&self.backend), detached.key().clone());
                let guard = lock.attach(detached).await?;
                Ok(self.keep(hold, guard))
            }
            Act::Waiters { key } => {
                let query = InspectQuery::key(LockKey::from_qualified(&key)?);
                let page = self.backend.inspect(query).await?;
                let waiters = page.keys.iter().map(|report| report.waiters.len());
                Ok(Answer::Count(waiters.sum()))
            }
            Act::Fork => Ok(Answer::Child(fork::plain_child(self.take_for_fork(&hold))?)),
            Act::Exec => exec_child(),
            Act::Stress(plan) => {
                let backend = Arc::clone(&self.backend);
                let run = tokio::task::spawn_blocking(move || stress::take_part(&backend, &plan));
                let grants = run.await??;
                // Whoever asked may end this process at once; what was dropped last is on its way.
                self.backend.close().await?;
                Ok(Answer::Count(grants))
            }
            Act::Exit => std::process::exit(0),
        }
    }

    fn lock(&self, key: &str) -> Outcome<Lock> {
        let key = LockKey::from_qualified(key)?;
        Ok(Lock::new(Arc::clone(&self.backend), key))
    }

    fn keep(&self, hold: String, guard: LockGuard) -> Answer {
        let fencing = fencing_of(&guard);
        let replaced = lock(&self.holds).insert(hold, guard);
        drop(replaced);
        Answer::Granted { fencing }
    }

    fn take(&self, hold: &str) -> Outcome<LockGuard> {
        lock(&self.holds)
            .remove(hold)
            .ok_or_else(|| Failure::new(format!("nothing is held as `{hold}`")))
    }

    /// The guard, and where to put it back in this process once the child has its copy.
    fn take_for_fork(&self, hold: &str) -> fork::Copied<'_> {
        let guard = lock(&self.holds).remove(hold);
        let hold = hold.to_owned();
        fork::Copied {
            guard,
            put_back: Box::new(move |guard| {
                let replaced = lock(&self.holds).insert(hold, guard);
                drop(replaced);
            }),
        }
    }
}

fn exec_child() -> Outcome<Answer> {
    // Never waited for: it outlives this process on purpose.
    let child = Command::new("sleep")
        .arg(crate::fork::LIFE_SECONDS.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Answer::Child(child.id()))
}
