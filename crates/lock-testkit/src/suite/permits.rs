//! So many and no more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lock_core::{AcquireOptions, ErrorKind, LockGuard, Mode};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    let permits = |case: Case| case.needs(Need::Permits);
    vec![
        case!(permits_are_refused_where_they_are_not_declared).needs(Need::NoPermits),
        permits(case!(the_maximum_is_reached_and_never_passed)),
        permits(case!(permits_drain_and_refill)),
        permits(case!(several_permits_are_taken_at_once_or_not_at_all)),
        permits(case!(a_waiter_for_many_is_not_starved_by_few)),
        permits(case!(slots_are_distinct)),
        permits(case!(permits_and_exclusive_exclude_each_other)),
        permits(case!(another_maximum_is_a_mode_conflict)),
        permits(case!(a_conflict_with_a_waiter_is_a_conflict)),
        permits(case!(shared_against_permit_is_a_mode_conflict)).needs(Need::Shared),
        permits(case!(a_maximum_binds_only_while_in_use)),
        permits(case!(a_crash_frees_one_permit)).needs(Need::SecondProcess),
    ]
}

fn of(count: u32, of: u32) -> Outcome<AcquireOptions> {
    Ok(AcquireOptions::new().mode(Mode::permits(count, of)?))
}

async fn permits_are_refused_where_they_are_not_declared(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let refused = lock.try_acquire_with(&of(1, 3)?).await.err();
    let kind = refused.map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(ErrorKind::Unsupported),
        "asking for a permit gave"
    );
    context.becomes_free(&lock).await
}

async fn the_maximum_is_reached_and_never_passed(context: &Context) -> Outcome {
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    let options = of(1, 3)?;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for number in 0..8 {
        let (lock, options) = (locks[number % 2].clone(), options.clone());
        let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                let guard = lock.acquire_with(&options).await?;
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                guard.release().await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let most = most.load(Ordering::SeqCst);
    ensure!(most <= 3, "{most} held one of 3 permits");
    let mut held = Vec::new();
    for number in 0..3 {
        let guard = context.soon("a free permit", locks[number % 2].acquire_with(&options));
        held.push(guard.await??);
    }
    ensure!(
        locks[0].try_acquire_with(&options).await?.is_none(),
        "a fourth of 3 permits"
    );
    Ok(())
}

async fn permits_drain_and_refill(context: &Context) -> Outcome {
    let (lock, options) = (context.lock("a")?, of(1, 5)?);
    for _ in 0..3 {
        let mut held: Vec<LockGuard> = Vec::new();
        while let Some(guard) = lock.try_acquire_with(&options).await? {
            held.push(guard);
            ensure!(held.len() <= 5, "{} of 5 permits are out", held.len());
        }
        ensure_eq!(held.len(), 5, "permits until drained");
        let waiting = tokio::spawn(lock.acquire_with(&options));
        context.waiters(&lock, 1).await?;
        if let Some(guard) = held.pop() {
            guard.release().await?;
        }
        held.push(context.soon("the freed permit", waiting).await???);
        for guard in held {
            guard.release().await?;
        }
    }
    Ok(())
}

async fn several_permits_are_taken_at_once_or_not_at_all(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let three = lock.acquire_with(&of(3, 5)?).await?;
    ensure!(
        lock.try_acquire_with(&of(3, 5)?).await?.is_none(),
        "6 of 5 permits are out"
    );
    let two = lock.try_acquire_with(&of(2, 5)?).await?;
    ensure!(two.is_some(), "a failed try kept permits");
    ensure!(
        lock.try_acquire_with(&of(1, 5)?).await?.is_none(),
        "6 of 5 permits are out"
    );
    three.release().await?;
    let three = lock.try_acquire_with(&of(3, 5)?).await?;
    ensure!(
        three.is_some(),
        "a release of three did not give back three"
    );
    Ok(())
}

async fn a_waiter_for_many_is_not_starved_by_few(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let one = lock.acquire_with(&of(1, 3)?).await?;
    let all = tokio::spawn(lock.acquire_with(&of(3, 3)?));
    context.waiters(&lock, 1).await?;
    ensure!(
        lock.try_acquire_with(&of(1, 3)?).await?.is_none(),
        "a permit overtook a waiter for all of them"
    );
    one.release().await?;
    context
        .soon("the turn of the waiter for all", all)
        .await???
        .release()
        .await?;
    Ok(())
}

async fn slots_are_distinct(context: &Context) -> Outcome {
    let (lock, options) = (context.lock("a")?, of(1, 4)?);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(lock.acquire_with(&options).await?);
    }
    for _ in 0..3 {
        let slots: HashSet<_> = held.iter().filter_map(LockGuard::slot).collect();
        ensure_eq!(slots.len(), 4, "distinct slots");
        ensure!(
            slots.iter().all(|slot| slot.0 < 4),
            "slots of 4 permits are {slots:?}"
        );
        ensure!(
            held.iter().all(|guard| guard.fencing_token().is_none()),
            "a permit has a fencing token"
        );
        held.remove(1).release().await?;
        held.push(lock.acquire_with(&options).await?);
    }
    Ok(())
}

async fn permits_and_exclusive_exclude_each_other(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let permit = lock.acquire_with(&of(1, 2)?).await?;
    ensure!(
        other.try_acquire().await?.is_none(),
        "exclusive beside a permit"
    );
    permit.release().await?;
    let exclusive = context
        .soon("the exclusive turn", other.acquire())
        .await??;
    ensure!(
        lock.try_acquire_with(&of(1, 2)?).await?.is_none(),
        "a permit beside exclusive"
    );
    drop(exclusive);
    Ok(())
}

async fn conflicts(context: &Context, options: &AcquireOptions, what: &str) -> Outcome {
    for lock in [context.lock("a")?, context.lock_elsewhere("a")?] {
        let tried = lock
            .try_acquire_with(options)
            .await
            .err()
            .map(|error| error.kind());
        ensure_eq!(
            tried,
            Some(ErrorKind::ModeConflict),
            "a try for {what} gave"
        );
        let waited = context
            .soon("an answer", lock.acquire_with(options))
            .await?;
        let waited = waited.err().map(|error| error.kind());
        ensure_eq!(
            waited,
            Some(ErrorKind::ModeConflict),
            "waiting for {what} gave"
        );
    }
    Ok(())
}

async fn another_maximum_is_a_mode_conflict(context: &Context) -> Outcome {
    let guard = context.lock("a")?.acquire_with(&of(1, 3)?).await?;
    conflicts(context, &of(1, 4)?, "another maximum").await?;
    ensure!(guard.is_held(), "a conflict ended the holder");
    Ok(())
}

async fn a_conflict_with_a_waiter_is_a_conflict(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let waiting = tokio::spawn(lock.acquire_with(&of(1, 3)?));
    context.waiters(&lock, 1).await?;
    let outcome = lock.try_acquire_with(&of(1, 4)?).await;
    let kind = outcome.err().map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(ErrorKind::ModeConflict),
        "a maximum that differs from a waiter's gave"
    );
    guard.release().await?;
    context
        .soon("the permit", waiting)
        .await???
        .release()
        .await?;
    Ok(())
}

async fn shared_against_permit_is_a_mode_conflict(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let shared = AcquireOptions::new().mode(Mode::Shared);
    let permit = lock.acquire_with(&of(1, 3)?).await?;
    conflicts(context, &shared, "shared against permit").await?;
    permit.release().await?;
    let reader = context
        .soon("a free lock", lock.acquire_with(&shared))
        .await??;
    conflicts(context, &of(1, 3)?, "a permit against shared").await?;
    drop(reader);
    Ok(())
}

async fn a_maximum_binds_only_while_in_use(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for maximum in [3, 2, 7] {
        let options = of(1, maximum)?;
        let guard = context
            .soon("a free lock", lock.acquire_with(&options))
            .await??;
        guard.release().await?;
    }
    Ok(())
}

async fn a_crash_frees_one_permit(context: &Context) -> Outcome {
    let (lock, mode) = (context.lock("a")?, Mode::permit(2)?);
    let options = context.options().mode(mode);
    let guard = lock.acquire_with(&options).await?;
    let mut agent = context.agent()?;
    agent
        .acquire("a", lock.key(), mode, context.lease_life())
        .await?;
    ensure!(
        lock.try_acquire_with(&options).await?.is_none(),
        "a third of 2 permits"
    );
    let waiting = tokio::spawn(lock.acquire_with(&options));
    agent.kill()?;
    let limit = context.crash_limit();
    let freed = tokio::time::timeout(limit, waiting).await;
    ensure!(
        freed.is_ok(),
        "the permit of a killed process was not free after {limit:?}"
    );
    let freed = freed???;
    ensure!(guard.is_held(), "a crash of one holder ended the other");
    ensure!(
        lock.try_acquire_with(&options).await?.is_none(),
        "a crash freed two permits"
    );
    drop(freed);
    Ok(())
}
