//! Exclusion under load, in one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lock_core::LockGuard;

use crate::case::{Case, case};
use crate::context::Context;
use crate::random::Random;
use crate::{Failure, Outcome, stress};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_hundred_tasks_count_without_losing_one),
        case!(eight_threads_count_without_losing_one),
        case!(a_thousand_random_operations_follow_the_model),
        case!(a_stress_run_shows_no_violation),
    ]
}

/// A counter that loses increments unless they exclude each other.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn write(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

async fn a_hundred_tasks_count_without_losing_one(context: &Context) -> Outcome {
    let counter = Arc::new(Counter::default());
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    let mut tasks = Vec::new();
    for number in 0..100 {
        let (lock, counter) = (locks[number % 2].clone(), Arc::clone(&counter));
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let guard = lock.acquire().await?;
                let before = counter.read();
                tokio::task::yield_now().await;
                counter.write(before + 1);
                guard.release().await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    ensure_eq!(counter.read(), 1000, "the counter shows");
    Ok(())
}

async fn eight_threads_count_without_losing_one(context: &Context) -> Outcome {
    let counter = Counter::default();
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (lock, counter) = (&locks[number % 2], &counter);
                    scope.spawn(move || {
                        for _ in 0..100 {
                            let guard = lock.acquire().wait()?;
                            let before = counter.read();
                            std::thread::yield_now();
                            counter.write(before + 1);
                            guard.release_blocking()?;
                        }
                        Ok::<_, Failure>(())
                    })
                })
                .collect();
            for thread in threads {
                let outcome = thread.join();
                outcome.map_err(|_| Failure::new("a thread panicked"))??;
            }
            Ok::<_, Failure>(())
        })
    })?;
    ensure_eq!(counter.read(), 800, "the counter shows");
    Ok(())
}

async fn a_thousand_random_operations_follow_the_model(context: &Context) -> Outcome {
    let mut random = Random::new(7);
    let clients = [context.backend().clone(), context.client()?];
    let mut held: HashMap<usize, LockGuard> = HashMap::new();
    for operation in 0..1000 {
        let number = random.below(20);
        let lock = lock_core::Lock::new(
            clients[random.below(2)].clone(),
            context.key(&format!("key-{number}"))?,
        );
        match random.below(4) {
            0 | 1 => {
                let granted = lock.try_acquire().await?;
                let free = !held.contains_key(&number);
                ensure_eq!(
                    granted.is_some(),
                    free,
                    "operation {operation}, try on {number} was granted"
                );
                held.extend(granted.map(|guard| (number, guard)));
            }
            2 => {
                if let Some(guard) = held.remove(&number) {
                    ensure!(guard.is_held(), "operation {operation}: {number} was lost");
                    guard.release().await?;
                }
            }
            _ => {
                let locked = lock.is_locked().await?;
                ensure_eq!(
                    locked,
                    held.contains_key(&number),
                    "operation {operation}, {number} is locked"
                );
            }
        }
    }
    Ok(())
}

async fn a_stress_run_shows_no_violation(context: &Context) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let plan = stress::Plan::new(context.namespace(), &context.capabilities(), path);
    stress::run(&**context.kit(), &plan).await?;
    Ok(())
}
