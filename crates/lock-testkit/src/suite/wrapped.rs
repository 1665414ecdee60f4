//! The backend under the wrappers that every deployment puts around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::wrap::{Counters, Deadlock, Event, EventKind, Observed};
use lock_core::{AcquireOptions, ErrorKind, Lock, LockBackend, LockGuard, OwnerId};
use tokio::task::JoinHandle;

use crate::case::{Case, case};
use crate::context::Context;
use crate::random::Random;
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(waiting_for_oneself_is_a_deadlock),
        case!(a_cycle_of_two_is_a_deadlock),
        case!(a_cycle_of_three_is_a_deadlock),
        case!(a_cycle_across_two_backends_is_a_deadlock),
        case!(waits_without_a_cycle_are_no_deadlock),
        case!(counters_match_a_scripted_run),
        case!(an_observer_that_panics_stops_nothing),
        case!(a_slow_observer_does_not_hold_up_the_next_holder),
    ]
}

/// Owners in a ring: each holds its own key and will ask for the next one's.
struct Ring {
    locks: Vec<Lock>,
    owners: Vec<AcquireOptions>,
    held: Vec<LockGuard>,
}

impl Ring {
    async fn of(context: &Context, backends: &[Arc<dyn LockBackend>], len: usize) -> Outcome<Self> {
        let (mut locks, mut owners, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..len {
            let key = context.key(&format!("key {number}"))?;
            let lock = Lock::new(Arc::clone(&backends[number % backends.len()]), key);
            let owner = AcquireOptions::new().owner(OwnerId::new());
            held.push(lock.acquire_with(&owner).await?);
            locks.push(lock);
            owners.push(owner);
        }
        Ok(Self {
            locks,
            owners,
            held,
        })
    }

    /// All but the last ask for the next one's key; the last closes the ring, and must be refused.
    async fn close(mut self, context: &Context) -> Outcome {
        let len = self.locks.len();
        let mut waiting: Vec<JoinHandle<_>> = Vec::new();
        for number in 0..len - 1 {
            let next = &self.locks[number + 1];
            waiting.push(tokio::spawn(next.acquire_with(&self.owners[number])));
            context.waiters(next, 1).await?;
        }
        let closing = self.locks[0].acquire_with(&self.owners[len - 1]);
        let refused = context.soon("the verdict", closing).await?;
        let error = match refused {
            Err(error) if error.kind() == ErrorKind::Deadlock => error,
            other => return Err(Failure::new(format!("closing a cycle gave {other:?}"))),
        };
        ensure_eq!(error.cycle().len(), len, "owners in the cycle");
        ensure!(
            waiting.iter().all(|task| !task.is_finished()),
            "more than one was refused"
        );
        // The one that was refused gives way, and everybody else gets in, last first.
        while let Some(guard) = self.held.pop() {
            guard.release().await?;
            if let Some(task) = waiting.pop() {
                context
                    .soon("the turn after a deadlock", task)
                    .await???
                    .release()
                    .await?;
            }
        }
        Ok(())
    }
}

async fn ring_of(context: &Context, len: usize) -> Outcome {
    let backend: Arc<dyn LockBackend> = Arc::new(Deadlock::new(Arc::clone(context.backend())));
    Ring::of(context, &[backend], len)
        .await?
        .close(context)
        .await
}

async fn waiting_for_oneself_is_a_deadlock(context: &Context) -> Outcome {
    ring_of(context, 1).await
}

async fn a_cycle_of_two_is_a_deadlock(context: &Context) -> Outcome {
    ring_of(context, 2).await
}

async fn a_cycle_of_three_is_a_deadlock(context: &Context) -> Outcome {
    ring_of(context, 3).await
}

async fn a_cycle_across_two_backends_is_a_deadlock(context: &Context) -> Outcome {
    let first = Deadlock::new(Arc::clone(context.backend()));
    let second = Deadlock::sharing(context.client()?, first.graph().clone());
    let backends: [Arc<dyn LockBackend>; 2] = [Arc::new(first), Arc::new(second)];
    Ring::of(context, &backends, 2).await?.close(context).await
}

async fn waits_without_a_cycle_are_no_deadlock(context: &Context) -> Outcome {
    let backend: Arc<dyn LockBackend> = Arc::new(Deadlock::new(Arc::clone(context.backend())));
    let until = Instant::now() + Duration::from_secs(1);
    let mut tasks = Vec::new();
    for number in 0..6 {
        let keys: Result<Vec<_>, _> = (0..4).map(|at| context.key(&format!("key {at}"))).collect();
        let (keys, backend) = (keys?, Arc::clone(&backend));
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(number);
            let mut rounds = 0;
            while Instant::now() < until {
                let owner = AcquireOptions::new().owner(OwnerId::new());
                let mut held = Vec::new();
                // Always upwards, so no cycle can come about.
                for key in &keys {
                    if random.below(2) == 0 {
                        let lock = Lock::new(Arc::clone(&backend), key.clone());
                        held.push(lock.acquire_with(&owner).await?);
                    }
                }
                rounds += 1;
            }
            Ok::<usize, Failure>(rounds)
        }));
    }
    for task in tasks {
        ensure!(task.await?? > 0, "a task did nothing");
    }
    Ok(())
}

async fn counters_match_a_scripted_run(context: &Context) -> Outcome {
    let counters = Arc::new(Counters::new());
    let observed = Observed::new(Arc::clone(context.backend()), counters.clone());
    let lock = Lock::new(Arc::new(observed), context.key("a")?);
    for _ in 0..3 {
        let guard = lock.acquire().await?;
        ensure!(
            lock.try_acquire().await?.is_none(),
            "a held lock was granted"
        );
        let waiting = tokio::spawn(lock.acquire());
        context.waiters(&lock, 1).await?;
        let mut cancelled = Box::pin(lock.acquire());
        ensure!(
            tokio::time::timeout(Duration::from_millis(20), &mut cancelled)
                .await
                .is_err(),
            "a held lock was granted"
        );
        drop(cancelled);
        guard.release().await?;
        drop(context.soon("the waiter's turn", waiting).await???);
        context.becomes_idle(&lock).await?;
    }
    context
        .eventually("the counts of the last release", async || {
            Ok(counters.snapshot().released == 6)
        })
        .await?;
    let seen = counters.snapshot();
    ensure_eq!(seen.attempts, 12, "attempts");
    ensure_eq!(seen.acquired, 6, "acquired");
    ensure_eq!(seen.contended, 3, "contended");
    ensure_eq!(seen.abandoned, 3, "abandoned");
    ensure_eq!((seen.failed, seen.lost), (0, 0), "failed and lost");
    ensure_eq!((seen.holders, seen.waiters), (0, 0), "holders and waiters");
    Ok(())
}

async fn an_observer_that_panics_stops_nothing(context: &Context) -> Outcome {
    let panics = |_: &Event<'_>| std::panic::resume_unwind(Box::new("an observer panicked"));
    let observed = Observed::new(Arc::clone(context.backend()), Arc::new(panics));
    let lock = Lock::new(Arc::new(observed), context.key("a")?);
    for _ in 0..3 {
        let guard = lock.acquire().await?;
        let waiting = tokio::spawn(lock.acquire());
        context.waiters(&lock, 1).await?;
        guard.release().await?;
        drop(context.soon("the waiter's turn", waiting).await???);
    }
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_slow_observer_does_not_hold_up_the_next_holder(context: &Context) -> Outcome {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let slow = move |event: &Event<'_>| {
        if matches!(event.kind, EventKind::Released { .. })
            && let Ok(gate) = gate.lock()
        {
            // Ends when the case drops its side.
            let _ = gate.recv();
        }
    };
    let observed = Observed::new(Arc::clone(context.backend()), Arc::new(slow));
    let lock = Lock::new(Arc::new(observed), context.key("a")?);
    let guard = lock.acquire().await?;
    let other = context.lock_elsewhere("a")?;
    let waiting = tokio::spawn(other.acquire());
    context.waiters(&other, 1).await?;
    let releasing = tokio::task::spawn_blocking(move || guard.release_blocking());
    let next = context
        .soon("the next holder, while the observer is busy", waiting)
        .await;
    drop(go);
    releasing.await??;
    next???.release().await?;
    Ok(())
}
