//! Whatever is dropped, and whenever, leaves no lock and no place in the queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Poller, Poll, Waker};
use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, Mode, Step, Wait};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::random::Random;
use crate::{Failure, Outcome};

/// Repetitions where they are cheap.
const ROUNDS: usize = 10_000;
/// Where they are not, as many as fit, but no fewer than a few.
const BUDGET: Duration = Duration::from_secs(2);
const AT_LEAST: usize = 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(an_acquire_dropped_before_its_first_poll_asks_nothing),
        case!(an_unpolled_step_queues_nothing),
        case!(an_acquire_dropped_at_any_poll_leaves_no_waiter),
        case!(an_acquire_dropped_at_the_moment_of_grant_passes_it_on),
        case!(a_cancel_that_races_the_grant_leaves_nothing),
        case!(a_dropped_waiter_does_not_stall_those_behind_it),
        case!(a_release_dropped_unpolled_releases),
        case!(a_release_dropped_half_way_releases),
        case!(an_abandoned_attempt_is_never_granted_afterwards),
        case!(a_leaked_guard_is_bounded_by_its_lease).needs(Need::Lease),
        case!(a_leaked_guard_is_bounded_by_max_hold),
    ]
}

/// Repeats as often as the budget allows.
async fn many(mut round: impl AsyncFnMut(usize) -> Outcome) -> Outcome {
    let started = Instant::now();
    for number in 0..ROUNDS {
        if number >= AT_LEAST && started.elapsed() > BUDGET {
            return Ok(());
        }
        round(number).await?;
    }
    Ok(())
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Poller::from_waker(Waker::noop()))
}

async fn an_acquire_dropped_before_its_first_poll_asks_nothing(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    drop(lock.acquire());
    let guard = lock.acquire().await?;
    drop(context.lock_elsewhere("a")?.acquire());
    context.waiters(&lock, 0).await?;
    guard.release().await?;
    context.becomes_free(&lock).await
}

async fn an_unpolled_step_queues_nothing(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let request = context.request(Mode::Exclusive, Wait::Forever)?;
    let step = lock.backend().acquire(lock.key(), &request);
    ensure!(
        matches!(step, Step::Waiting(_)),
        "a held lock answered at once: {step:?}"
    );
    let report = context.report(&lock).await?;
    ensure!(
        report.waiters.is_empty(),
        "queued before the first poll: {:?}",
        report.waiters
    );
    guard.release().await?;
    let report = context.report(&lock).await?;
    ensure!(
        report.holders.is_empty(),
        "granted before the first poll: {:?}",
        report.holders
    );
    drop(step);
    lock.backend().abandon(lock.key(), request.attempt);
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn an_acquire_dropped_at_any_poll_leaves_no_waiter(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let other = context.lock_elsewhere("a")?;
    for polls in 1..8 {
        for blocked in [&lock, &other] {
            let guard = lock.acquire().await?;
            let mut acquire = blocked.acquire();
            for _ in 0..polls {
                ensure!(
                    poll_once(&mut acquire).is_pending(),
                    "a held lock was granted"
                );
                tokio::task::yield_now().await;
            }
            drop(acquire);
            context.waiters(blocked, 0).await?;
            ensure!(
                guard.is_held(),
                "a cancelled waiter made the holder lose its lock"
            );
            guard.release().await?;
            context.becomes_free(blocked).await?;
        }
    }
    Ok(())
}

async fn an_acquire_dropped_at_the_moment_of_grant_passes_it_on(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    many(async |_| {
        let guard = lock.acquire().await?;
        let mut acquire = lock.acquire();
        ensure!(
            poll_once(&mut acquire).is_pending(),
            "a held lock was granted"
        );
        // Granted by this release at the latest, and nobody looks.
        guard.release().await?;
        drop(acquire);
        let next = lock.acquire();
        drop(
            context
                .soon("the lock after a granted waiter was dropped", next)
                .await??,
        );
        Ok(())
    })
    .await
}

async fn a_cancel_that_races_the_grant_leaves_nothing(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut random = Random::new(6);
    many(async |_| {
        let guard = lock.acquire().await?;
        let waiters: Vec<_> = (0..3).map(|_| tokio::spawn(lock.acquire())).collect();
        for _ in 0..random.below(4) {
            tokio::task::yield_now().await;
        }
        let released = tokio::spawn(guard.release());
        for waiter in &waiters {
            waiter.abort();
        }
        released.await??;
        for waiter in waiters {
            // Cancelled, or granted before the abort: the guard then goes here.
            drop(waiter.await);
        }
        let guard = context
            .soon("the lock after a race", lock.acquire())
            .await??;
        guard.release().await?;
        Ok(())
    })
    .await
}

async fn a_dropped_waiter_does_not_stall_those_behind_it(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for gone in 0..3 {
        let guard = lock.acquire().await?;
        let mut waiters = Vec::new();
        for queued in 1..=3 {
            waiters.push(tokio::spawn(lock.acquire()));
            context.waiters(&lock, queued).await?;
        }
        let dropped = waiters.remove(gone);
        dropped.abort();
        context.waiters(&lock, 2).await?;
        drop(dropped.await);
        guard.release().await?;
        for waiter in waiters {
            let guard = context.soon("a waiter's turn", waiter).await???;
            guard.release().await?;
        }
    }
    Ok(())
}

async fn a_release_dropped_unpolled_releases(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    many(async |_| {
        let guard = context.soon("the lock", lock.acquire()).await??;
        drop(guard.release());
        Ok(())
    })
    .await?;
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_release_dropped_half_way_releases(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    many(async |round| {
        let guard = context.soon("the lock", lock.acquire()).await??;
        let mut release = Box::pin(guard.release());
        for _ in 0..=round % 3 {
            if poll_once(&mut release).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await?;
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn an_abandoned_attempt_is_never_granted_afterwards(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let request = context.request(Mode::Exclusive, Wait::Forever)?;
    let Step::Waiting(mut step) = lock.backend().acquire(lock.key(), &request) else {
        return Err(Failure::new("a held lock answered at once"));
    };
    ensure!(poll_once(&mut step).is_pending(), "a held lock was granted");
    context.waiters(&lock, 1).await?;
    lock.backend().abandon(lock.key(), request.attempt);
    context.waiters(&lock, 0).await?;
    guard.release().await?;
    let other = context.lock_elsewhere("a")?;
    let guard = context.soon("the lock", other.acquire()).await??;
    let granted = match poll_once(&mut step) {
        Poll::Ready(Ok(granted)) => granted,
        Poll::Ready(Err(_)) | Poll::Pending => None,
    };
    ensure!(
        granted.is_none(),
        "an abandoned attempt was granted: {granted:?}"
    );
    guard.release().await?;
    Ok(())
}

async fn a_leaked_guard_is_bounded_by_its_lease(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    lock.acquire_with(&context.options()).await?.leak();
    let other = context.lock_elsewhere("a")?;
    let waiting = other.acquire();
    let limit = context.ttl() * 2 + context.patience();
    let granted = tokio::time::timeout(limit, waiting).await;
    ensure!(granted.is_ok(), "a leaked lock was held for {limit:?}");
    drop(granted??);
    Ok(())
}

async fn a_leaked_guard_is_bounded_by_max_hold(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = AcquireOptions::new().max_hold(Duration::from_millis(50));
    lock.acquire_with(&options).await?.leak();
    context.becomes_free(&context.lock_elsewhere("a")?).await
}
