//! One holder at a time, and nothing but the holder decides when it ends.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context as Poller, Waker};
use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, Change, ErrorKind, Lock, Mode, OwnerId, Released, Wait};

use crate::case::{Case, case};
use crate::context::Context;
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(acquire_release_and_acquire_again),
        case!(a_second_try_is_contended_on_every_handle_and_client),
        case!(names_are_independent),
        case!(attempts_differ_and_fencing_rises),
        case!(release_is_idempotent_and_never_frees_the_next_holder),
        case!(abandon_of_a_finished_attempt_never_frees_the_next_holder),
        case!(a_finished_grant_cannot_be_changed),
        case!(asking_again_under_one_attempt_gives_the_same_grant),
        case!(a_failed_acquire_leaves_everything_as_it_was),
        case!(a_timed_acquire_ends_in_time_and_not_before),
        case!(a_wait_limit_of_zero_is_one_attempt),
        case!(a_deadline_in_the_past_is_one_attempt),
        case!(no_wake_up_is_lost_between_a_failed_try_and_the_queue),
        case!(a_waiter_that_moved_to_another_task_is_woken_there),
        case!(threads_without_a_runtime_wait_and_release),
        case!(a_panic_releases),
    ]
}

async fn acquire_release_and_acquire_again(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for _ in 0..3 {
        let guard = context.soon("a free lock", lock.acquire()).await??;
        ensure!(guard.is_held(), "a fresh guard is not held");
        ensure!(lock.is_locked().await?, "a held lock is not reported");
        ensure_eq!(guard.release().await?, Released::Released, "release said");
    }
    let guard = lock.try_acquire().await?;
    ensure!(guard.is_some(), "a free lock was contended");
    drop(guard);
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_second_try_is_contended_on_every_handle_and_client(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let handles = [
        lock.clone(),
        context.lock("a")?,
        context.lock_elsewhere("a")?,
    ];
    for (number, handle) in handles.iter().enumerate() {
        let second = handle.try_acquire().await?;
        ensure!(second.is_none(), "handle {number} got a lock that is held");
    }
    guard.release().await?;
    for handle in &handles {
        context.becomes_free(handle).await?;
    }
    Ok(())
}

async fn names_are_independent(context: &Context) -> Outcome {
    let first = context.lock("a")?.acquire().await?;
    let second = context.lock("b")?.try_acquire().await?;
    ensure!(second.is_some(), "holding `a` kept `b` from being acquired");
    first.release().await?;
    let second = second.filter(lock_core::LockGuard::is_held);
    ensure!(second.is_some(), "releasing `a` ended `b`");
    Ok(())
}

async fn attempts_differ_and_fencing_rises(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut before = None;
    let mut attempts = std::collections::HashSet::new();
    for _ in 0..50 {
        let guard = lock.acquire().await?;
        ensure!(
            attempts.insert(guard.attempt()),
            "an attempt was used twice"
        );
        let token = guard.fencing_token();
        ensure!(
            token.is_some(),
            "an exclusive grant without a fencing token"
        );
        ensure!(token > before, "fencing went from {before:?} to {token:?}");
        before = token;
        guard.release().await?;
    }
    Ok(())
}

async fn release_is_idempotent_and_never_frees_the_next_holder(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let (_, grant) = context.grant(&key).await?;
    let backend = context.backend();
    let first = backend.release(&key, &grant).finish().await?;
    ensure_eq!(first, Released::Released, "the first release said");
    let again = backend.release(&key, &grant).finish().await?;
    ensure_eq!(again, Released::AlreadyLost, "the second release said");

    let next = context.lock_elsewhere("a")?;
    let held = next.acquire().await?;
    let late = backend.release(&key, &grant).finish().await?;
    ensure_eq!(late, Released::AlreadyLost, "a release after takeover said");
    still_held(context, &held, "a late release").await
}

async fn abandon_of_a_finished_attempt_never_frees_the_next_holder(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let (request, grant) = context.grant(&key).await?;
    let backend = context.backend();
    backend.abandon(&key, request.attempt);
    backend.abandon(&key, request.attempt);
    let lock = context.lock("a")?;
    let held = context.soon("an abandoned lock", lock.acquire()).await??;
    backend.abandon(&key, request.attempt);
    // An attempt that never was.
    backend.abandon(&key, lock_core::OwnerToken::mint());
    let late = backend.release(&key, &grant).finish().await?;
    ensure_eq!(late, Released::AlreadyLost, "a release after abandon said");
    still_held(context, &held, "a late abandon").await
}

/// The holder holds, and the store agrees.
async fn still_held(context: &Context, held: &lock_core::LockGuard, what: &str) -> Outcome {
    let other = Lock::new(context.client()?, held.key().clone());
    ensure!(
        other.try_acquire().await?.is_none(),
        "{what} freed the next holder"
    );
    ensure!(held.is_held(), "{what} made the next holder lose its lock");
    let report = context.report(&context.lock(held.key().name())?).await?;
    let holders: Vec<_> = report.holders.iter().map(|party| party.attempt).collect();
    ensure_eq!(holders, vec![held.attempt()], "holders after {what}");
    Ok(())
}

async fn a_finished_grant_cannot_be_changed(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let (_, grant) = context.grant(&key).await?;
    let backend = context.backend();
    backend.release(&key, &grant).finish().await?;
    let attach = Change::Attach {
        owner: None,
        mode: Mode::Exclusive,
    };
    for change in [Change::Transfer(OwnerId::new()), attach] {
        match backend.alter(&key, &grant, change).finish().await {
            Err(error) if error.kind() == ErrorKind::Lost => {}
            other => {
                return Err(Failure::new(format!(
                    "{change:?} of a released grant gave {other:?}, expected Lost"
                )));
            }
        }
    }
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn asking_again_under_one_attempt_gives_the_same_grant(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let (request, first) = context.grant(&key).await?;
    let backend = context.backend();
    let asked = backend.acquire(&key, &request);
    let again = context.soon("the same grant", asked.finish()).await??;
    let again = again.ok_or_else(|| Failure::new("its own grant was contended"))?;
    ensure_eq!(again.fence, first.fence, "the second answer's fence is");
    let released = backend.release(&key, &again).finish().await?;
    ensure_eq!(released, Released::Released, "release said");
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_failed_acquire_leaves_everything_as_it_was(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.acquire().await?;
    ensure!(
        other.try_acquire().await?.is_none(),
        "a held lock was granted"
    );
    let limit = Duration::from_millis(30);
    ensure!(
        other.try_acquire_for(limit).await?.is_none(),
        "a held lock was granted"
    );
    context.waiters(&other, 0).await?;
    let report = context.report(&lock).await?;
    let holders: Vec<_> = report.holders.iter().map(|party| party.attempt).collect();
    ensure_eq!(holders, vec![guard.attempt()], "holders");
    ensure!(
        guard.is_held(),
        "a failed try made the holder lose its lock"
    );
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    // A failed acquire must not be granted afterwards.
    context.becomes_free(&lock).await
}

async fn a_timed_acquire_ends_in_time_and_not_before(context: &Context) -> Outcome {
    let guard = context.lock("a")?.acquire().await?;
    let other = context.lock_elsewhere("a")?;
    let limit = Duration::from_millis(200);
    let slack = Duration::from_secs(2);
    for blocking in [false, true] {
        let (started, lock) = (Instant::now(), other.clone());
        let options = AcquireOptions::new().wait_limit(limit);
        let outcome = if blocking {
            tokio::task::spawn_blocking(move || lock.acquire_with(&options).wait()).await?
        } else {
            lock.acquire_with(&options).await
        };
        let took = started.elapsed();
        let kind = outcome.err().map(|error| error.kind());
        ensure_eq!(kind, Some(ErrorKind::Timeout), "a passed wait limit gave");
        ensure!(
            took >= limit,
            "gave up after {took:?}, before its limit of {limit:?}"
        );
        ensure!(
            took < limit + slack,
            "gave up after {took:?}, its limit was {limit:?}"
        );
    }
    guard.release().await?;
    Ok(())
}

async fn a_wait_limit_of_zero_is_one_attempt(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.try_acquire_for(Duration::ZERO).await?;
    ensure!(guard.is_some(), "zero on a free lock failed");
    let started = Instant::now();
    let tried = other.try_acquire_for(Duration::ZERO);
    let tried = context.soon("an answer to one attempt", tried).await??;
    ensure!(tried.is_none(), "zero on a held lock succeeded");
    let options = AcquireOptions::new().wait_limit(Duration::ZERO);
    let kind = other
        .acquire_with(&options)
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Timeout), "zero on a held lock gave");
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(2), "one attempt took {took:?}");
    // The backend itself must not wait either, nor queue.
    let request = context.request(Mode::Exclusive, Wait::Now)?;
    let step = other.backend().acquire(other.key(), &request).finish();
    let granted = context.soon("an answer to one attempt", step).await??;
    ensure!(granted.is_none(), "a held lock was granted");
    context.waiters(&other, 0).await
}

async fn a_deadline_in_the_past_is_one_attempt(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let past = lock_core::clock::Instant::now() - Duration::from_secs(1);
    let options = AcquireOptions::new().wait_until(past);
    let guard = lock.acquire_with(&options).await?;
    let acquire = other.acquire_with(&options);
    let kind = context
        .soon("a timeout", acquire)
        .await?
        .err()
        .map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(ErrorKind::Timeout),
        "a deadline in the past gave"
    );
    drop(guard);
    Ok(())
}

async fn no_wake_up_is_lost_between_a_failed_try_and_the_queue(context: &Context) -> Outcome {
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    for round in 0..100 {
        for lock in &locks {
            let guard = locks[0].acquire().await?;
            let waiting = tokio::spawn(lock.acquire());
            // The release meets the waiter at every stage of its way into the queue, and in it.
            for _ in 0..round % 10 {
                tokio::task::yield_now().await;
            }
            if round % 10 == 9 {
                context.waiters(lock, 1).await?;
            }
            guard.release().await?;
            let granted = context
                .soon("a lock released meanwhile", waiting)
                .await???;
            granted.release().await?;
        }
    }
    Ok(())
}

async fn a_waiter_that_moved_to_another_task_is_woken_there(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let mut waiter = context.lock_elsewhere("a")?.acquire();
    let polled = Pin::new(&mut waiter).poll(&mut Poller::from_waker(Waker::noop()));
    ensure!(polled.is_pending(), "a held lock was granted");
    context.waiters(&lock, 1).await?;
    let (arrive, arrival) = tokio::sync::oneshot::channel();
    let mut arrive = Some(arrive);
    let moved = tokio::spawn(poll_fn(move |poller| {
        let polled = Pin::new(&mut waiter).poll(poller);
        if let Some(arrive) = arrive.take() {
            // Invariant: whoever listens does so until this arrives.
            let _ = arrive.send(());
        }
        polled
    }));
    arrival.await?;
    guard.release().await?;
    drop(context.soon("a waiter that moved", moved).await???);
    Ok(())
}

async fn threads_without_a_runtime_wait_and_release(context: &Context) -> Outcome {
    let guard = context.lock("a")?.acquire().await?;
    let lock = context.lock("a")?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let waiting = lock.clone();
    std::thread::spawn(move || {
        let outcome = waiting
            .acquire()
            .wait()
            .and_then(|guard| guard.release_blocking());
        // The receiver is gone when the case has failed already.
        drop(sender.send(outcome));
    });
    context.waiters(&lock, 1).await?;
    guard.release().await?;
    let outcome = context.soon("the thread's turn", receiver).await???;
    ensure_eq!(outcome, Released::Released, "release said");
    Ok(())
}

async fn a_panic_releases(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let inside = lock.clone();
    let task = tokio::spawn(async move {
        let _guard = inside.acquire().await;
        // Unwinds like a panic, without a report on standard error.
        std::panic::resume_unwind(Box::new("the section panicked"));
    });
    ensure!(
        task.await.is_err_and(|error| error.is_panic()),
        "the section did not panic"
    );
    context.becomes_free(&context.lock_elsewhere("a")?).await
}
