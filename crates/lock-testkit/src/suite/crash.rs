//! Killed, stopped and forked processes, cut connections, restarted servers.

use std::time::{Duration, SystemTime};

use lock_core::clock::Instant;
use lock_core::{
    ErrorKind, FencedRegister, FencingNumber, FencingToken, Lock, LockGuard, Mode, Released,
};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::process::{Act, Agent, Answer, Ask};
use crate::{Failure, Fault, Outcome, stress};

pub(crate) fn cases() -> Vec<Case> {
    let two = |case: Case| case.needs(Need::SecondProcess);
    vec![
        two(case!(two_processes_exclude_each_other)),
        two(case!(a_killed_holder_lets_the_waiter_in)),
        two(case!(a_holder_that_exits_lets_the_waiter_in)),
        two(case!(a_killed_waiter_does_not_stall_the_queue)),
        two(case!(waiters_of_two_processes_all_get_in)),
        two(case!(
            a_stress_run_of_processes_that_are_killed_shows_no_violation
        ))
        .needs(Need::NoLease),
        two(case!(a_stopped_holder_keeps_its_lock)).needs(Need::NoLease),
        two(case!(a_holder_stopped_past_its_lease_is_fenced_off)).needs(Need::Lease),
        two(case!(a_forked_child_neither_keeps_nor_releases_the_lock)),
        two(case!(a_started_program_does_not_keep_the_lock)),
        case!(a_cut_connection_while_held_is_no_loss).needs(Need::Fault(Fault::Disconnect)),
        case!(a_cut_connection_does_not_forget_a_waiter).needs(Need::Fault(Fault::Disconnect)),
        case!(a_restart_with_data_keeps_order_and_fencing).needs(Need::Fault(Fault::Restart)),
        case!(a_restart_without_data_lets_everybody_know).needs(Need::Fault(Fault::RestartEmpty)),
    ]
}

async fn agent_tries(agent: &Agent, lock: &Lock) -> Outcome<bool> {
    let ask = Ask::try_acquire("tried", lock.key(), Mode::Exclusive);
    match agent.call(&ask).await? {
        Answer::Granted { .. } => Ok(true),
        Answer::Contended => Ok(false),
        other => Err(Failure::new(format!("a try gave {other:?}"))),
    }
}

/// The lock, within what a crash may take to be noticed.
async fn after_crash(context: &Context, lock: &Lock) -> Outcome<LockGuard> {
    let limit = context.crash_limit();
    match tokio::time::timeout(limit, lock.acquire_with(&context.options())).await {
        Ok(granted) => Ok(granted?),
        Err(_) => Err(Failure::new(format!("not free {limit:?} after the crash"))),
    }
}

async fn two_processes_exclude_each_other(context: &Context) -> Outcome {
    let (lock, agent) = (context.lock("a")?, context.agent()?);
    agent
        .acquire("a", lock.key(), Mode::Exclusive, None)
        .await?;
    ensure!(
        lock.try_acquire().await?.is_none(),
        "a lock of another process was granted"
    );
    let waiting = tokio::spawn(lock.acquire());
    agent.call(&Ask::on(Act::Release, "a")).await?;
    let guard = context
        .soon("the lock of another process", waiting)
        .await???;
    ensure!(
        !agent_tries(&agent, &lock).await?,
        "the other process got a lock that is held"
    );
    guard.release().await?;
    context
        .eventually("the other process gets a free lock", async || {
            agent_tries(&agent, &lock).await
        })
        .await?;
    agent.call(&Ask::on(Act::Release, "tried")).await?;
    Ok(())
}

async fn a_killed_holder_lets_the_waiter_in(context: &Context) -> Outcome {
    let (lock, mut agent) = (context.lock("a")?, context.agent()?);
    let before = agent
        .acquire("a", lock.key(), Mode::Exclusive, context.lease_life())
        .await?;
    let waiting = tokio::spawn(lock.acquire());
    context.waiters(&lock, 1).await?;
    agent.kill()?;
    let limit = context.crash_limit();
    let granted = tokio::time::timeout(limit, waiting).await;
    ensure!(
        granted.is_ok(),
        "the waiter was not let in {limit:?} after the crash"
    );
    let guard = granted???;
    let after = guard.fencing_token().map(|token| token.number().get());
    if context.capabilities().fencing != lock_core::FencingLife::Process {
        ensure!(
            after > before,
            "fencing went from {before:?} to {after:?} over a crash"
        );
    }
    guard.release().await?;
    Ok(())
}

async fn a_holder_that_exits_lets_the_waiter_in(context: &Context) -> Outcome {
    let (lock, mut agent) = (context.lock("a")?, context.agent()?);
    agent
        .acquire("a", lock.key(), Mode::Exclusive, context.lease_life())
        .await?;
    ensure!(
        lock.try_acquire().await?.is_none(),
        "a lock of another process was granted"
    );
    drop(agent.ask(&Ask::on(Act::Exit, ""))?);
    tokio::task::block_in_place(|| agent.wait())?;
    after_crash(context, &lock).await?.release().await?;
    Ok(())
}

async fn a_killed_waiter_does_not_stall_the_queue(context: &Context) -> Outcome {
    let (lock, mut agent) = (context.lock("a")?, context.agent()?);
    let guard = lock.acquire_with(&context.options()).await?;
    drop(
        agent
            .wait_in_line("a", lock.key(), Mode::Exclusive, context)
            .await?,
    );
    let waiting = tokio::spawn(lock.acquire());
    context
        .eventually("this process waits too", async || {
            Ok(!context.report(&lock).await?.waiters.is_empty())
        })
        .await?;
    agent.kill()?;
    guard.release().await?;
    let limit = context.crash_limit();
    let granted = tokio::time::timeout(limit, waiting).await;
    ensure!(
        granted.is_ok(),
        "a dead waiter stalled the queue for {limit:?}"
    );
    granted???.release().await?;
    Ok(())
}

async fn waiters_of_two_processes_all_get_in(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let agents = [context.agent()?, context.agent()?];
    for _ in 0..5 {
        let guard = lock.acquire().await?;
        let first = agents[0]
            .wait_in_line("a", lock.key(), Mode::Exclusive, context)
            .await?;
        let second = agents[1]
            .wait_in_line("a", lock.key(), Mode::Exclusive, context)
            .await?;
        guard.release().await?;
        // Whoever comes first must let the other in by a release.
        let (first, second) = (tokio::spawn(first.answer()), tokio::spawn(second.answer()));
        context
            .eventually("one of them holds", async || {
                Ok(first.is_finished() || second.is_finished())
            })
            .await?;
        let in_order = if first.is_finished() {
            [(first, &agents[0]), (second, &agents[1])]
        } else {
            [(second, &agents[1]), (first, &agents[0])]
        };
        for (turn, agent) in in_order {
            context.soon("the other process's turn", turn).await???;
            agent.call(&Ask::on(Act::Release, "a")).await?;
        }
    }
    Ok(())
}

async fn a_stress_run_of_processes_that_are_killed_shows_no_violation(
    context: &Context,
) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let mut plan = stress::Plan::new(context.namespace(), &context.capabilities(), path);
    plan.kill_every = Some(Duration::from_millis(150));
    let verdict = stress::run(&**context.kit(), &plan).await?;
    ensure!(verdict.killed > 0, "nobody was killed: {verdict}");
    Ok(())
}

async fn a_stopped_holder_keeps_its_lock(context: &Context) -> Outcome {
    let (lock, agent) = (context.lock("a")?, context.agent()?);
    agent
        .acquire("a", lock.key(), Mode::Exclusive, None)
        .await?;
    agent.stop()?;
    let granted = lock.try_acquire_for(Duration::from_millis(300)).await?;
    agent.resume()?;
    ensure!(
        granted.is_none(),
        "a stopped process lost a lock that lives by the process"
    );
    match agent.call(&Ask::on(Act::Release, "a")).await? {
        Answer::Yes(true) => context.becomes_free(&lock).await,
        other => Err(Failure::new(format!("release after a stop said {other:?}"))),
    }
}

async fn a_holder_stopped_past_its_lease_is_fenced_off(context: &Context) -> Outcome {
    let (lock, agent) = (context.lock("a")?, context.agent()?);
    let (asked, asked_by_wall_clock) = (Instant::now(), SystemTime::now());
    let old = agent
        .acquire("a", lock.key(), Mode::Exclusive, context.lease_life())
        .await?;
    let old = old.and_then(FencingNumber::from_raw);
    let old = old.ok_or_else(|| Failure::new("an exclusive grant without a fencing number"))?;
    let resource = FencedRegister::new(0);
    resource.write(FencingToken::new(0, old), |value| *value = 1)?;
    agent.stop()?;
    let guard = after_crash(context, &lock).await;
    if let Ok(guard) = &guard {
        let new = guard.fencing_token();
        let new = new.ok_or_else(|| Failure::new("a grant without a fencing token"))?;
        resource.write(new, |value| *value = 2)?;
    }
    let lived = Instant::now().saturating_duration_since(asked);
    let by_wall_clock = asked_by_wall_clock.elapsed();
    agent.resume()?;
    let guard = guard?;
    let held = agent.call(&Ask::on(Act::IsHeld, "a")).await?;
    // A store whose clock was set ahead lets the next one in early, and the holder cannot know.
    ensure!(
        matches!(held, Answer::Yes(false)),
        "on resume the loss is not visible: {held:?}; the next one was let in within {lived:?}, or \
         {by_wall_clock:?} by the wall clock, of a lease of {:?}",
        context.lease_life()
    );
    let stale = resource.write(FencingToken::new(0, old), |value| *value = 3);
    ensure!(
        stale.is_err(),
        "the resource took a write with a stale token"
    );
    let late = agent.call(&Ask::on(Act::Release, "a")).await?;
    ensure!(
        matches!(late, Answer::Yes(false)),
        "a late release said {late:?}"
    );
    ensure!(guard.is_held(), "a late release ended the new holder");
    ensure_eq!(
        guard.release().await?,
        Released::Released,
        "the new holder's release said"
    );
    Ok(())
}

async fn a_forked_child_neither_keeps_nor_releases_the_lock(context: &Context) -> Outcome {
    let (lock, mut agent) = (context.lock("a")?, context.agent()?);
    let life = context.lease_life();
    agent
        .acquire("a", lock.key(), Mode::Exclusive, life)
        .await?;
    // The child has dropped its copy of the guard.
    agent.fork_child("a").await?;
    ensure!(
        lock.try_acquire().await?.is_none(),
        "a forked child released its parent's lock"
    );
    let held = agent.call(&Ask::on(Act::IsHeld, "a")).await?;
    ensure!(
        matches!(held, Answer::Yes(true)),
        "the parent lost its lock by a fork: {held:?}"
    );
    agent.call(&Ask::on(Act::Release, "a")).await?;
    after_crash(context, &lock).await?.release().await?;

    // The child outlives the parent, and keeps nothing.
    agent
        .acquire("b", lock.key(), Mode::Exclusive, life)
        .await?;
    agent.fork_child("").await?;
    agent.kill()?;
    after_crash(context, &lock).await?.release().await?;
    Ok(())
}

async fn a_started_program_does_not_keep_the_lock(context: &Context) -> Outcome {
    let (lock, mut agent) = (context.lock("a")?, context.agent()?);
    agent
        .acquire("a", lock.key(), Mode::Exclusive, context.lease_life())
        .await?;
    agent.exec_child().await?;
    agent.kill()?;
    after_crash(context, &lock).await?.release().await?;
    Ok(())
}

async fn a_cut_connection_while_held_is_no_loss(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire_with(&context.options()).await?;
    context.inflict(Fault::Disconnect, lock.key()).await?;
    let early = tokio::time::timeout(context.ttl() * 2, guard.lost()).await;
    ensure!(early.is_err(), "a cut connection was a loss: {early:?}");
    let other = context.lock_elsewhere("a")?;
    ensure!(
        other.try_acquire().await?.is_none(),
        "a cut connection freed the lock"
    );
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    context.becomes_free(&other).await
}

async fn a_cut_connection_does_not_forget_a_waiter(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.acquire_with(&context.options()).await?;
    let waiting = tokio::spawn(other.acquire_with(&context.options()));
    context.waiters(&other, 1).await?;
    context.inflict(Fault::Disconnect, lock.key()).await?;
    if let Err(error) = guard.release().await {
        // Its reply may have been lost with the connection; the backend then goes on trying.
        let open = matches!(
            error.kind(),
            ErrorKind::Indeterminate | ErrorKind::Unavailable
        );
        ensure!(open, "a release over a cut connection gave {error}");
    }
    let granted = tokio::time::timeout(context.crash_limit(), waiting).await;
    ensure!(
        granted.is_ok(),
        "a waiter was forgotten when its connection was cut"
    );
    granted???.release().await?;
    Ok(())
}

async fn a_restart_with_data_keeps_order_and_fencing(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.acquire_with(&context.options()).await?;
    let before = guard.fencing_token();
    let waiting = tokio::spawn(other.acquire_with(&context.options()));
    context.waiters(&other, 1).await?;
    context.inflict(Fault::Restart, lock.key()).await?;
    // Held still, or reported lost: never silently both.
    let released = guard.release().await;
    let limit = context.crash_limit();
    let granted = tokio::time::timeout(limit, waiting).await;
    ensure!(
        granted.is_ok(),
        "the waiter was not let in {limit:?} after the restart ({released:?})"
    );
    let next = granted???;
    let after = next.fencing_token();
    if context.capabilities().fencing != lock_core::FencingLife::Process {
        ensure!(
            after > before,
            "fencing went from {before:?} to {after:?} over a restart"
        );
    }
    next.release().await?;
    Ok(())
}

async fn a_restart_without_data_lets_everybody_know(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.acquire_with(&context.options()).await?;
    let waiting = tokio::spawn(other.acquire_with(&context.options()));
    context.waiters(&other, 1).await?;
    context.inflict(Fault::RestartEmpty, lock.key()).await?;
    let limit = context.crash_limit();
    let lost = tokio::time::timeout(limit, guard.lost()).await;
    ensure!(
        lost.is_ok(),
        "the holder does not know that the store is empty"
    );
    let granted = tokio::time::timeout(limit, waiting).await;
    ensure!(
        granted.is_ok(),
        "the waiter neither got in nor got an error"
    );
    match granted?? {
        Ok(next) => drop(next.release().await?),
        Err(error) => {
            let clear = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Backend);
            ensure!(clear, "the waiter of a store that was wiped got {error}");
        }
    }
    Ok(())
}
