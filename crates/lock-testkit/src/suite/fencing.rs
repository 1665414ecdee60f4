//! Numbers that rise with every exclusive grant of a key, whatever ended the one before.

use lock_core::{AcquireOptions, FencedRegister, FencingToken, LockGuard, Mode};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::{Failure, Outcome, stress};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(tokens_rise_over_release_drop_and_clients),
        case!(tokens_rise_after_the_key_was_forgotten),
        case!(tokens_rise_over_a_shared_interlude).needs(Need::Shared),
        case!(a_late_writer_is_refused_by_the_resource),
        case!(tokens_rise_over_crashes)
            .needs(Need::SecondProcess)
            .needs(Need::StoredFencing),
        case!(tokens_rise_over_random_operations_of_four_processes),
    ]
}

fn token(guard: &LockGuard) -> Outcome<FencingToken> {
    guard
        .fencing_token()
        .ok_or_else(|| Failure::new("an exclusive grant without a fencing token"))
}

async fn tokens_rise_over_release_drop_and_clients(context: &Context) -> Outcome {
    let locks = [
        context.lock("a")?,
        context.lock_elsewhere("a")?,
        context.lock_elsewhere("a")?,
    ];
    let mut before = None;
    for round in 0..60 {
        let lock = &locks[round % 3];
        let guard = context.soon("the lock", lock.acquire()).await??;
        let now = token(&guard)?;
        ensure!(
            Some(now) > before,
            "round {round}: {now:?} came after {before:?}"
        );
        before = Some(now);
        match round % 4 {
            0 => drop(guard),
            1 => drop(guard.release()),
            _ => drop(guard.release().await?),
        }
    }
    Ok(())
}

async fn tokens_rise_after_the_key_was_forgotten(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let before = token(&guard)?;
    guard.release().await?;
    // Whatever is remembered must not be pushed out by other keys.
    for number in 0..300 {
        context
            .lock(&format!("other {number}"))?
            .acquire()
            .await?
            .release()
            .await?;
    }
    context.nothing_is_left().await?;
    let after = token(&context.lock_elsewhere("a")?.acquire().await?)?;
    ensure!(after > before, "{after:?} came after {before:?}");
    Ok(())
}

async fn tokens_rise_over_a_shared_interlude(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut before = None;
    for _ in 0..10 {
        let guard = lock.acquire().await?;
        let now = token(&guard)?;
        ensure!(Some(now) > before, "{now:?} came after {before:?}");
        before = Some(now);
        guard.release().await?;
        let shared = AcquireOptions::new().mode(Mode::Shared);
        lock.acquire_with(&shared).await?.release().await?;
    }
    Ok(())
}

async fn a_late_writer_is_refused_by_the_resource(context: &Context) -> Outcome {
    let (lock, resource) = (context.lock("a")?, FencedRegister::new(0));
    let guard = lock.acquire().await?;
    let late = token(&guard)?;
    resource.write(late, |value| *value = 1)?;
    guard.release().await?;
    let guard = context.lock_elsewhere("a")?.acquire().await?;
    resource.write(token(&guard)?, |value| *value = 2)?;
    ensure!(
        resource.write(late, |value| *value = 3).is_err(),
        "a write with a stale token was taken"
    );
    Ok(())
}

async fn tokens_rise_over_crashes(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let mut before = None;
    for round in 0..3 {
        let mut agent = context.agent()?;
        let limit = context.crash_limit();
        let held = agent.acquire("a", lock.key(), Mode::Exclusive, context.lease_life());
        let number = tokio::time::timeout(limit, held).await??;
        ensure!(
            number > before,
            "crash {round}: {number:?} came after {before:?}"
        );
        agent.kill()?;
        let guard = tokio::time::timeout(limit, lock.acquire()).await??;
        before = Some(token(&guard)?.number().get());
        ensure!(
            before > number,
            "crash {round}: {before:?} came after {number:?}"
        );
        guard.release().await?;
    }
    Ok(())
}

async fn tokens_rise_over_random_operations_of_four_processes(context: &Context) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let mut plan = stress::Plan::new(context.namespace(), &context.capabilities(), path);
    // Few keys and one mode: every grant has a number, and follows another.
    (plan.keys, plan.threads, plan.processes) = (2, 2, 4);
    (plan.shared, plan.permits) = (false, false);
    let verdict = stress::run(&**context.kit(), &plan).await?;
    ensure_eq!(verdict.summary.together, 0, "grants without a number");
    Ok(())
}
