//! Several locks at once, all or nothing.

use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, ErrorKind, Lock, LossReason, Released, acquire_all};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::random::Random;
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_set_is_held_and_released_whole),
        case!(duplicates_count_once),
        case!(overlapping_sets_in_opposite_order_never_deadlock),
        case!(a_set_that_fails_rolls_back),
        case!(a_cancelled_set_leaves_nothing),
        case!(a_set_shares_one_wait_limit),
        case!(one_lost_is_all_lost),
        case!(one_broken_is_all_lost).needs(Need::BreakLock),
    ]
}

fn locks(context: &Context, names: &[&str]) -> Outcome<Vec<Lock>> {
    names.iter().map(|name| context.lock(name)).collect()
}

async fn a_set_is_held_and_released_whole(context: &Context) -> Outcome {
    let locks = locks(context, &["c", "a", "b"])?;
    let set = acquire_all(&locks, &AcquireOptions::new()).await?;
    let names: Vec<_> = set
        .guards()
        .iter()
        .map(|guard| guard.key().name())
        .collect();
    ensure_eq!(names, ["a", "b", "c"], "taken in the order");
    ensure!(set.is_held(), "a fresh set is not held");
    for name in ["a", "b", "c"] {
        let other = context.lock_elsewhere(name)?;
        ensure!(
            other.try_acquire().await?.is_none(),
            "`{name}` is free though its set is held"
        );
    }
    ensure_eq!(set.release().await?, Released::Released, "release said");
    context.nothing_is_left().await
}

async fn duplicates_count_once(context: &Context) -> Outcome {
    let locks = locks(context, &["a", "b", "a", "a"])?;
    let options = AcquireOptions::new();
    let all = acquire_all(&locks, &options);
    let set = context.soon("a set with duplicates", all).await??;
    ensure_eq!(set.guards().len(), 2, "guards");
    drop(set);
    context.nothing_is_left().await
}

async fn overlapping_sets_in_opposite_order_never_deadlock(context: &Context) -> Outcome {
    let names = ["a", "b", "c", "d"];
    let here = locks(context, &names)?;
    let there: Result<Vec<_>, _> = names
        .iter()
        .map(|name| context.lock_elsewhere(name))
        .collect();
    let there = there?;
    let mut tasks = Vec::new();
    for number in 0..6_u64 {
        let mut locks = if number % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(number);
            for _ in 0..50 {
                let at = random.below(locks.len());
                locks.rotate_left(at);
                locks.reverse();
                let some = &locks[..2 + random.below(3)];
                drop(acquire_all(some, &AcquireOptions::new()).await?);
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn a_set_that_fails_rolls_back(context: &Context) -> Outcome {
    let blocker = context.lock_elsewhere("c")?.acquire().await?;
    let locks = locks(context, &["a", "b", "c", "d"])?;
    let options = AcquireOptions::new().wait_limit(Duration::from_millis(50));
    let kind = acquire_all(&locks, &options)
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Timeout), "a set with a held key gave");
    for name in ["a", "b", "d"] {
        context.becomes_free(&context.lock_elsewhere(name)?).await?;
    }
    ensure!(blocker.is_held(), "a failed set ended another holder");
    blocker.release().await?;
    Ok(())
}

async fn a_cancelled_set_leaves_nothing(context: &Context) -> Outcome {
    let blocker = context.lock_elsewhere("c")?.acquire().await?;
    let (all, last) = (locks(context, &["a", "b", "c"])?, context.lock("c")?);
    let task =
        tokio::spawn(async move { acquire_all(&all, &AcquireOptions::new()).await.map(drop) });
    context.waiters(&last, 1).await?;
    task.abort();
    for name in ["a", "b"] {
        context.becomes_free(&context.lock_elsewhere(name)?).await?;
    }
    context.waiters(&last, 0).await?;
    drop(blocker);
    Ok(())
}

async fn a_set_shares_one_wait_limit(context: &Context) -> Outcome {
    let first = context.lock_elsewhere("a")?.acquire().await?;
    let second = context.lock_elsewhere("b")?.acquire().await?;
    let limit = Duration::from_millis(400);
    let options = AcquireOptions::new().wait_limit(limit);
    let (all, a) = (locks(context, &["a", "b"])?, context.lock("a")?);
    // Connected before the limit runs.
    ensure!(a.is_locked().await?, "a held lock is not reported");
    let started = Instant::now();
    let task = tokio::spawn(async move { acquire_all(&all, &options).await.map(drop) });
    context.waiters(&a, 1).await?;
    // sleep: spends half of the wait limit on the first lock
    tokio::time::sleep(limit / 2).await;
    first.release().await?;
    let kind = task.await?.err().map(|error| error.kind());
    let took = started.elapsed();
    ensure_eq!(kind, Some(ErrorKind::Timeout), "a set with a held key gave");
    ensure!(
        took >= limit,
        "gave up after {took:?}, before its limit of {limit:?}"
    );
    let most = limit + Duration::from_secs(2);
    ensure!(
        took < most,
        "gave up after {took:?}, its limit was {limit:?}"
    );
    drop(second);
    Ok(())
}

async fn one_lost_is_all_lost(context: &Context) -> Outcome {
    let locks = locks(context, &["a", "b"])?;
    let options = AcquireOptions::new().max_hold(Duration::from_millis(50));
    let set = acquire_all(&locks, &options).await?;
    let reason = context.soon("the loss", set.lost()).await?;
    ensure_eq!(reason, LossReason::MaxHold, "lost because");
    ensure!(!set.is_held(), "a set with a lost lock is held");
    ensure_eq!(set.release().await?, Released::AlreadyLost, "release said");
    Ok(())
}

async fn one_broken_is_all_lost(context: &Context) -> Outcome {
    let locks = locks(context, &["a", "b"])?;
    let set = acquire_all(&locks, &context.options()).await?;
    locks[1].backend().break_lock(locks[1].key(), None).await?;
    context.soon("the loss", set.lost()).await?;
    ensure!(!set.is_held(), "a set with a broken lock is held");
    ensure_eq!(set.release().await?, Released::AlreadyLost, "release said");
    context.becomes_free(&context.lock_elsewhere("a")?).await
}
