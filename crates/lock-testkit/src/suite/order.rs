//! Who is next. On one client, where every ordering holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lock_core::{AcquireOptions, BYPASS_LIMIT, Lock, LockGuard};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::{Failure, Outcome};

/// Grants over which fairness is stated.
const GRANTS: usize = 10_000;
const EQUALS: usize = 16;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(one_priority_is_served_first_come_first_served),
        case!(order_reaches_over_clients).needs(Need::GlobalOrder),
        case!(a_higher_priority_goes_first),
        case!(a_try_does_not_overtake_those_who_wait),
        case!(a_waiter_bypassed_64_times_is_served_next),
        case!(equal_waiters_get_equal_shares).lengthy(),
    ]
}

/// Waiters that say their number when it is their turn, and then release.
struct Queue<'a> {
    context: &'a Context,
    sender: mpsc::UnboundedSender<usize>,
    served: mpsc::UnboundedReceiver<usize>,
    tasks: Vec<JoinHandle<Outcome>>,
}

impl<'a> Queue<'a> {
    fn new(context: &'a Context) -> Self {
        let (sender, served) = mpsc::unbounded_channel();
        Self {
            context,
            sender,
            served,
            tasks: Vec::new(),
        }
    }

    /// Queues one more, and returns once it is queued.
    async fn join(&mut self, lock: &Lock, priority: i8) -> Outcome {
        let number = self.tasks.len();
        let options = AcquireOptions::new().priority(priority);
        let (lock, sender) = (lock.clone(), self.sender.clone());
        let seen_by = lock.clone();
        self.tasks.push(tokio::spawn(async move {
            let guard = lock.acquire_with(&options).await?;
            sender.send(number)?;
            guard.release().await?;
            Ok(())
        }));
        self.context.waiters(&seen_by, number + 1).await
    }

    /// Lets them in, and returns the order in which they came.
    async fn serve(mut self, guard: LockGuard) -> Outcome<Vec<usize>> {
        guard.release().await?;
        for task in self.tasks {
            self.context.soon("a waiter's turn", task).await???;
        }
        drop(self.sender);
        let mut order = Vec::new();
        while let Some(number) = self.served.recv().await {
            order.push(number);
        }
        Ok(order)
    }
}

async fn one_priority_is_served_first_come_first_served(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let mut queue = Queue::new(context);
    for _ in 0..8 {
        queue.join(&lock, 0).await?;
    }
    let order = queue.serve(guard).await?;
    ensure_eq!(order, (0..8).collect::<Vec<_>>(), "served");
    Ok(())
}

async fn order_reaches_over_clients(context: &Context) -> Outcome {
    let locks = [
        context.lock("a")?,
        context.lock_elsewhere("a")?,
        context.lock_elsewhere("a")?,
    ];
    let guard = locks[0].acquire().await?;
    let mut queue = Queue::new(context);
    for number in 0..6 {
        queue
            .join(&locks[number % 3], if number == 5 { 1 } else { 0 })
            .await?;
    }
    let order = queue.serve(guard).await?;
    ensure_eq!(order, vec![5, 0, 1, 2, 3, 4], "served");
    Ok(())
}

async fn a_higher_priority_goes_first(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let mut queue = Queue::new(context);
    for priority in [0, -5, 7, 0, 7, 127, -128] {
        queue.join(&lock, priority).await?;
    }
    let order = queue.serve(guard).await?;
    ensure_eq!(order, vec![5, 2, 4, 0, 3, 1, 6], "served");
    Ok(())
}

async fn a_try_does_not_overtake_those_who_wait(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let mut queue = Queue::new(context);
    queue.join(&lock, 0).await?;
    // At the moment of the release the lock is the waiter's, or held: never free for a try.
    let release = tokio::spawn(guard.release());
    for _ in 0..20 {
        let overtook = lock.try_acquire().await?;
        if overtook.is_some() {
            ensure!(queue.served.try_recv().is_ok(), "a try overtook a waiter");
            break;
        }
    }
    release.await??;
    for task in queue.tasks {
        context.soon("the waiter's turn", task).await???;
    }
    Ok(())
}

async fn a_waiter_bypassed_64_times_is_served_next(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut guard = lock.acquire().await?;
    let patient = tokio::spawn(lock.acquire_with(&AcquireOptions::new().priority(-1)));
    context.waiters(&lock, 1).await?;
    let favoured = AcquireOptions::new().priority(1);
    let limit = BYPASS_LIMIT as usize;
    for bypassed in 0..=limit {
        let next = tokio::spawn(lock.acquire_with(&favoured));
        context.waiters(&lock, 2).await?;
        guard.release().await?;
        if bypassed < limit {
            guard = context.soon("the favoured waiter's turn", next).await???;
            ensure!(
                !patient.is_finished(),
                "a low priority was served after {bypassed} bypasses"
            );
        } else {
            let served = context
                .soon("the bypassed waiter's turn", patient)
                .await???;
            ensure!(
                !next.is_finished(),
                "a waiter bypassed {bypassed} times was not next"
            );
            served.release().await?;
            context
                .soon("the favoured waiter's turn", next)
                .await???
                .release()
                .await?;
            return Ok(());
        }
    }
    Err(Failure::new(
        "unreachable: the loop ends with the bypassed waiter",
    ))
}

async fn equal_waiters_get_equal_shares(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let rounds = lock.clone();
    let running = tokio::task::spawn_blocking(move || share_out(&rounds));
    context.waiters(&lock, EQUALS).await?;
    guard.release().await?;
    let shares = running.await??;
    ensure_eq!(shares.iter().sum::<usize>(), GRANTS, "grants");
    let (Some(most), Some(least)) = (shares.iter().max(), shares.iter().min()) else {
        return Err(Failure::new("nobody was served"));
    };
    ensure!(
        most * 10 <= least * 12,
        "shares of {GRANTS} grants range from {least} to {most}"
    );
    Ok(())
}

/// Equal tasks that each queue again as soon as they have released. On one thread: a task that the
/// system stops between release and acquire would not be waiting, and so not be treated unfairly.
fn share_out(lock: &Lock) -> Outcome<Vec<usize>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let left = Arc::new(AtomicUsize::new(GRANTS));
    let tasks: Vec<_> = (0..EQUALS)
        .map(|_| runtime.spawn(take_share(lock.clone(), Arc::clone(&left))))
        .collect();
    runtime.block_on(async {
        let mut shares = Vec::new();
        for task in tasks {
            shares.push(task.await??);
        }
        Ok(shares)
    })
}

async fn take_share(lock: Lock, left: Arc<AtomicUsize>) -> Outcome<usize> {
    let mut grants = 0;
    loop {
        let guard = lock.acquire().await?;
        // Invariant: counted while holding, so the load and the store do not race.
        let now = left.load(Ordering::Relaxed);
        if now == 0 {
            return Ok(grants);
        }
        left.store(now - 1, Ordering::Relaxed);
        grants += 1;
        guard.release().await?;
    }
}
