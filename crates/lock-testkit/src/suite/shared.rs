//! Many shared holders or one exclusive, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lock_core::{AcquireOptions, ErrorKind, Mode};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::random::Random;
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    let shared = |case: Case| case.needs(Need::Shared);
    vec![
        case!(shared_mode_is_refused_where_it_is_not_declared).needs(Need::NoShared),
        shared(case!(many_shared_or_one_exclusive)),
        shared(case!(shared_holders_carry_no_fencing_token)),
        shared(case!(a_waiting_exclusive_holds_back_new_shared_ones)),
        shared(case!(a_cancelled_exclusive_waiter_lets_shared_ones_in)),
        shared(case!(
            an_exclusive_waiter_that_times_out_lets_shared_ones_in
        )),
        shared(case!(waiting_shared_ones_come_in_together)),
        shared(case!(random_interleavings_never_mix_the_modes)),
        shared(case!(there_is_no_upgrade_while_holding)),
        shared(case!(a_crashed_shared_holder_ages_out_alone)).needs(Need::SecondProcess),
        shared(case!(a_killed_exclusive_waiter_lets_shared_ones_in)).needs(Need::SecondProcess),
        shared(case!(a_downgrade_leaves_no_gap)).needs(Need::Downgrade),
        case!(a_downgrade_is_refused_where_it_is_not_declared).needs(Need::NoDowngrade),
    ]
}

fn shared() -> AcquireOptions {
    AcquireOptions::new().mode(Mode::Shared)
}

async fn shared_mode_is_refused_where_it_is_not_declared(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let refused = lock.try_acquire_with(&shared()).await.err();
    let kind = refused.map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "asking for shared gave");
    context.becomes_free(&lock).await
}

async fn many_shared_or_one_exclusive(context: &Context) -> Outcome {
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    let mut held = Vec::new();
    for number in 0..6 {
        let guard = locks[number % 2].try_acquire_with(&shared()).await?;
        ensure!(
            guard.is_some(),
            "shared holder {number} was kept out by shared ones"
        );
        held.extend(guard);
    }
    // Another client may report its three as the one remote hold that they share.
    let reported = context.report(&locks[0]).await?.holders.len();
    ensure!(
        (4..=6).contains(&reported),
        "{reported} of 6 shared holders are reported"
    );
    while let Some(guard) = held.pop() {
        for lock in &locks {
            ensure!(
                lock.try_acquire().await?.is_none(),
                "an exclusive holder came in among shared ones"
            );
        }
        guard.release().await?;
    }
    let exclusive = context
        .soon("the exclusive turn", locks[1].acquire())
        .await??;
    for lock in &locks {
        let second = lock.try_acquire_with(&shared()).await?;
        ensure!(
            second.is_none(),
            "a shared holder came in beside an exclusive one"
        );
    }
    exclusive.release().await?;
    Ok(())
}

async fn shared_holders_carry_no_fencing_token(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let exclusive = lock.acquire().await?;
    let token = exclusive.fencing_token();
    exclusive.release().await?;
    let guard = lock.acquire_with(&shared()).await?;
    ensure!(
        guard.fencing_token().is_none(),
        "a shared holder has a right to write"
    );
    if let (Some(version), Some(token)) = (guard.read_version(), token) {
        ensure!(
            version.0 >= token.number(),
            "the read version {version:?} is older than {token}"
        );
    }
    let report = context.report(&lock).await?;
    let seen = report
        .holders
        .iter()
        .map(|party| (party.mode, party.fencing));
    let seen: Vec<_> = seen.collect();
    ensure_eq!(seen, [(Mode::Shared, None)], "the holders reported");
    Ok(())
}

async fn a_waiting_exclusive_holds_back_new_shared_ones(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let reader = lock.acquire_with(&shared()).await?;
    let writer = tokio::spawn(lock.acquire());
    context.waiters(&lock, 1).await?;
    ensure!(
        lock.try_acquire_with(&shared()).await?.is_none(),
        "a shared one overtook a waiting exclusive"
    );
    let late = tokio::spawn(lock.acquire_with(&shared()));
    context.waiters(&lock, 2).await?;
    reader.release().await?;
    let writer = context.soon("the exclusive turn", writer).await???;
    ensure!(
        !late.is_finished(),
        "a shared one came in beside an exclusive one"
    );
    writer.release().await?;
    context
        .soon("the shared turn", late)
        .await???
        .release()
        .await?;
    Ok(())
}

async fn a_cancelled_exclusive_waiter_lets_shared_ones_in(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let reader = lock.acquire_with(&shared()).await?;
    let writer = tokio::spawn(lock.acquire());
    context.waiters(&lock, 1).await?;
    let late = tokio::spawn(lock.acquire_with(&shared()));
    context.waiters(&lock, 2).await?;
    writer.abort();
    let late = context.soon("the shared turn", late).await???;
    ensure!(
        reader.is_held() && late.is_held(),
        "a shared holder was lost"
    );
    Ok(())
}

async fn an_exclusive_waiter_that_times_out_lets_shared_ones_in(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let reader = lock.acquire_with(&shared()).await?;
    let limited = AcquireOptions::new().wait_limit(Duration::from_millis(300));
    let writer = tokio::spawn(lock.acquire_with(&limited));
    let late = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire_with(&shared()).await }
    });
    let outcome = context.soon("the wait limit", writer).await??;
    ensure!(
        outcome.is_err(),
        "an exclusive holder came in beside a shared one"
    );
    let late = context.soon("the shared turn", late).await???;
    ensure!(
        reader.is_held() && late.is_held(),
        "a shared holder was lost"
    );
    Ok(())
}

async fn waiting_shared_ones_come_in_together(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let writer = lock.acquire().await?;
    let mut readers = Vec::new();
    for queued in 1..=4 {
        readers.push(tokio::spawn(lock.acquire_with(&shared())));
        context.waiters(&lock, queued).await?;
    }
    writer.release().await?;
    let mut held = Vec::new();
    for reader in readers {
        // Each keeps its guard: the next one can come in only beside it.
        held.push(context.soon("the shared turn", reader).await???);
    }
    ensure_eq!(context.report(&lock).await?.holders.len(), 4, "holders");
    Ok(())
}

async fn random_interleavings_never_mix_the_modes(context: &Context) -> Outcome {
    // Above zero: shared holders. -1: one exclusive.
    let inside = Arc::new(AtomicI64::new(0));
    let locks = [context.lock("a")?, context.lock_elsewhere("a")?];
    let mut tasks = Vec::new();
    for number in 0..10 {
        let (lock, inside) = (locks[number % 2].clone(), Arc::clone(&inside));
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(number as u64);
            for _ in 0..100 {
                if random.below(3) == 0 {
                    let guard = lock.acquire().await?;
                    let before = inside.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_add(1, Ordering::SeqCst);
                    ensure_eq!(before, 0, "shared holders beside an exclusive one");
                    guard.release().await?;
                } else {
                    let guard = lock.acquire_with(&shared()).await?;
                    let before = inside.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    ensure!(before >= 0, "an exclusive holder beside a shared one");
                    drop(guard);
                }
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn there_is_no_upgrade_while_holding(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire_with(&shared()).await?;
    ensure!(
        lock.try_acquire().await?.is_none(),
        "a shared holder became exclusive"
    );
    let waiting = lock.try_acquire_for(Duration::from_millis(50));
    ensure!(waiting.await?.is_none(), "a shared holder became exclusive");
    ensure_eq!(guard.mode(), Mode::Shared, "the mode is");
    ensure!(guard.is_held(), "a refused upgrade lost the lock");
    Ok(())
}

async fn a_crashed_shared_holder_ages_out_alone(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = context.options().mode(Mode::Shared);
    let guard = lock.acquire_with(&options).await?;
    let mut agent = context.agent()?;
    agent
        .acquire("a", lock.key(), Mode::Shared, context.lease_life())
        .await?;
    agent.kill()?;
    let limit = context.crash_limit();
    context
        .within(limit, "one shared holder is left", async || {
            Ok(context.report(&lock).await?.holders.len() == 1)
        })
        .await?;
    ensure!(
        guard.is_held(),
        "a crash of one shared holder ended the other"
    );
    let other = context.lock_elsewhere("a")?;
    ensure!(
        other.try_acquire().await?.is_none(),
        "an exclusive holder came in beside a shared one"
    );
    guard.release().await?;
    context.becomes_free(&other).await
}

async fn a_killed_exclusive_waiter_lets_shared_ones_in(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = context.options().mode(Mode::Shared);
    let guard = lock.acquire_with(&options).await?;
    let mut agent = context.agent()?;
    let waiting = agent.wait_in_line("a", lock.key(), Mode::Exclusive, context);
    drop(waiting.await?);
    agent.kill()?;
    let limit = context.crash_limit();
    let late = tokio::time::timeout(limit, lock.acquire_with(&options)).await;
    ensure!(
        late.is_ok(),
        "shared ones were kept out for {limit:?} by a dead waiter"
    );
    let late = late??;
    ensure!(
        guard.is_held() && late.is_held(),
        "a shared holder was lost"
    );
    Ok(())
}

async fn a_downgrade_leaves_no_gap(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for exclusive_first in [false, true] {
        let mut guard = lock.acquire().await?;
        let modes = if exclusive_first {
            [Mode::Exclusive, Mode::Shared]
        } else {
            [Mode::Shared, Mode::Exclusive]
        };
        let mut waiters = Vec::new();
        for (queued, mode) in modes.into_iter().enumerate() {
            let options = AcquireOptions::new().mode(mode);
            waiters.push(tokio::spawn(lock.acquire_with(&options)));
            context.waiters(&lock, queued + 1).await?;
        }
        context.soon("a downgrade", guard.downgrade()).await??;
        ensure_eq!(guard.mode(), Mode::Shared, "after a downgrade the mode is");
        ensure!(guard.is_held(), "the lock was lost by a downgrade");
        let holders = context.report(&lock).await?.holders;
        ensure!(
            holders.iter().any(|party| party.attempt == guard.attempt()),
            "the downgraded holder is gone"
        );
        ensure!(
            holders.iter().all(|party| party.mode == Mode::Shared),
            "an exclusive holder came in at a downgrade"
        );
        let other = context.lock_elsewhere("a")?;
        ensure!(
            other.try_acquire().await?.is_none(),
            "a shared hold did not exclude"
        );
        let second = waiters.pop();
        let first = waiters.pop();
        let (Some(first), Some(second)) = (first, second) else {
            return Err(Failure::new("two were queued"));
        };
        if exclusive_first {
            ensure!(
                !first.is_finished(),
                "an exclusive holder came in at a downgrade"
            );
            guard.release().await?;
            context
                .soon("the exclusive turn", first)
                .await???
                .release()
                .await?;
            context
                .soon("the shared turn", second)
                .await???
                .release()
                .await?;
        } else {
            let reader = context.soon("the shared turn", first).await???;
            ensure!(
                !second.is_finished(),
                "an exclusive holder came in at a downgrade"
            );
            guard.release().await?;
            reader.release().await?;
            context
                .soon("the exclusive turn", second)
                .await???
                .release()
                .await?;
        }
    }
    Ok(())
}

async fn a_downgrade_is_refused_where_it_is_not_declared(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut guard = lock.acquire().await?;
    let kind = guard.downgrade().await.err().map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "a downgrade gave");
    ensure_eq!(
        guard.mode(),
        Mode::Exclusive,
        "after a refused downgrade the mode is"
    );
    let other = context.lock_elsewhere("a")?;
    ensure!(
        other.try_acquire().await?.is_none(),
        "a refused downgrade gave the lock away"
    );
    ensure_eq!(
        guard.release().await?,
        lock_core::Released::Released,
        "release said"
    );
    Ok(())
}
