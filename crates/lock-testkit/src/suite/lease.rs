//! Leases, their renewal, and the signal that one was lost.

use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{LockGuard, LossReason, Released, Renewal, Renewed};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::{Failure, Fault, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    let leased = |case: Case| case.needs(Need::Lease);
    let expires = |case: Case| {
        case.needs(Need::Lease)
            .needs(Need::Fault(Fault::ExpireLease))
    };
    let deleted = |case: Case| case.needs(Need::Fault(Fault::DeleteRecord));
    vec![
        case!(a_plain_release_is_no_loss),
        leased(case!(a_grant_lasts_no_longer_than_its_ttl_says)),
        leased(case!(a_lock_is_held_past_three_ttls_while_renewed)),
        leased(case!(an_idle_lease_raises_no_false_alarm)),
        leased(case!(a_renewal_after_release_resurrects_nothing)),
        leased(case!(a_renewal_that_races_a_release_resurrects_nothing)),
        leased(case!(a_detached_lease_ends_by_itself)),
        expires(case!(an_expired_lease_is_signalled_as_lost)),
        expires(case!(a_loss_is_told_at_once_to_those_who_ask_later)),
        expires(case!(a_loss_stops_a_protected_future)),
        expires(case!(renew_and_release_after_takeover_change_nothing)),
        deleted(case!(a_deleted_record_is_signalled_as_lost)),
        leased(case!(a_hung_server_is_a_loss_before_the_lease_ends))
            .needs(Need::Fault(Fault::Stall)),
        leased(case!(a_short_silence_is_no_loss)).needs(Need::Fault(Fault::Stall)),
    ]
}

async fn hold(context: &Context) -> Outcome<LockGuard> {
    Ok(context.lock("a")?.acquire_with(&context.options()).await?)
}

/// The signal has come within a lease life and slack.
async fn is_lost(context: &Context, guard: &LockGuard) -> Outcome<LossReason> {
    let limit = context.ttl() + context.patience();
    let lost = tokio::time::timeout(limit, guard.lost()).await;
    let reason = lost.map_err(|_| Failure::new(format!("no loss was signalled in {limit:?}")))?;
    ensure!(!guard.is_held(), "held after the loss was signalled");
    Ok(reason)
}

async fn a_plain_release_is_no_loss(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for round in 0..20 {
        let guard = lock.acquire().await?;
        let mut lost = Box::pin(guard.lost());
        ensure!(guard.loss().is_none(), "a fresh guard is lost");
        let ran = guard.protect(async { 7 }).await?;
        ensure_eq!(ran, 7, "a protected future gave");
        if round % 2 == 0 {
            guard.release().await?;
        } else {
            drop(guard);
            context.becomes_free(&lock).await?;
        }
        let early = tokio::time::timeout(Duration::from_millis(2), &mut lost).await;
        ensure!(
            early.is_err(),
            "a plain release was signalled as a loss: {early:?}"
        );
        ensure!(lost.reason().is_none(), "a plain release counts as a loss");
    }
    Ok(())
}

async fn a_grant_lasts_no_longer_than_its_ttl_says(context: &Context) -> Outcome {
    let before = Instant::now();
    let guard = hold(context).await?;
    let remaining = guard.remaining();
    let remaining = remaining.ok_or_else(|| Failure::new("a lease without a deadline"))?;
    let deadline = Instant::now() + remaining;
    // The deadline counts from before the request was sent, so not even the round trip is added.
    let most = Instant::now().saturating_duration_since(before) + context.ttl();
    let lasts = deadline.saturating_duration_since(before);
    ensure!(
        lasts <= most,
        "good for {lasts:?} with a TTL of {:?}",
        context.ttl()
    );
    ensure!(
        remaining <= context.ttl(),
        "{remaining:?} left of a TTL of {:?}",
        context.ttl()
    );
    Ok(())
}

async fn a_lock_is_held_past_three_ttls_while_renewed(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    let other = context.lock_elsewhere("a")?;
    let until = Instant::now() + context.ttl() * 7 / 2;
    while !until.has_passed() {
        ensure!(
            guard.is_held(),
            "a renewed lease was lost: {:?}",
            guard.loss()
        );
        ensure!(
            other.try_acquire().await?.is_none(),
            "a renewed lease was granted to another"
        );
        // sleep: the server owns the time of its leases
        tokio::time::sleep(context.ttl() / 10).await;
    }
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    context.becomes_free(&other).await
}

async fn an_idle_lease_raises_no_false_alarm(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    let early = tokio::time::timeout(context.ttl() * 10, guard.lost()).await;
    ensure!(early.is_err(), "lost without a cause: {early:?}");
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    Ok(())
}

fn renewal(
    context: &Context,
    key: &lock_core::LockKey,
    grant: &lock_core::Grant,
) -> Outcome<Renewal> {
    let lease = grant.validity.as_ref().and_then(lock_core::Validity::lease);
    let lease = lease.ok_or_else(|| Failure::new("a lease backend granted without a lease"))?;
    Ok(Renewal {
        key: key.clone(),
        lease: lease.id,
        ttl: context.ttl(),
    })
}

async fn a_renewal_after_release_resurrects_nothing(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let (_, grant) = context.grant(&key).await?;
    let backend = context.backend();
    let renewal = renewal(context, &key, &grant)?;
    backend.release(&key, &grant).finish().await?;
    let renewed = backend.renew(std::slice::from_ref(&renewal)).await?;
    ensure_eq!(renewed.len(), 1, "outcomes of one renewal");
    let per_grant = context.capabilities().lease == lock_core::LeaseKind::PerGrant;
    // A session lives on without this lock.
    if per_grant {
        ensure!(
            matches!(renewed[..], [Renewed::Lost]),
            "renewing a released lease gave {renewed:?}"
        );
    }
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_renewal_that_races_a_release_resurrects_nothing(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    for _ in 0..30 {
        let (_, grant) = context.grant(lock.key()).await?;
        let renewal = renewal(context, lock.key(), &grant)?;
        let backend = context.backend().clone();
        let renewing = tokio::spawn(async move { backend.renew(&[renewal]).await.map(drop) });
        let released = context
            .backend()
            .release(lock.key(), &grant)
            .finish()
            .await?;
        ensure_eq!(released, Released::Released, "release said");
        // A renewal that came too late may say so; what counts is the store.
        drop(renewing.await?);
        let guard = other.try_acquire().await?;
        ensure!(guard.is_some(), "a renewal resurrected a released lock");
        if let Some(guard) = guard {
            guard.release().await?;
        }
    }
    Ok(())
}

async fn a_detached_lease_ends_by_itself(context: &Context) -> Outcome {
    let detached = hold(context).await?.detach().await?;
    let other = context.lock_elsewhere("a")?;
    let limit = context.crash_limit();
    context
        .within(limit, "a detached lease ends", async || {
            Ok(other.try_acquire().await?.is_some())
        })
        .await?;
    let kind = context
        .lock("a")?
        .attach(detached)
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(lock_core::ErrorKind::Lost),
        "attaching an expired lock gave"
    );
    Ok(())
}

async fn an_expired_lease_is_signalled_as_lost(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    context.inflict(Fault::ExpireLease, guard.key()).await?;
    is_lost(context, &guard).await?;
    let other = context.lock_elsewhere("a")?;
    let next = context
        .soon("the lock after expiry", other.acquire())
        .await??;
    ensure_eq!(
        guard.release().await?,
        Released::AlreadyLost,
        "release said"
    );
    ensure!(
        next.is_held(),
        "releasing a lost lock ended the next holder"
    );
    ensure!(
        other.try_acquire().await?.is_none(),
        "releasing a lost lock freed the next holder"
    );
    drop(next);
    Ok(())
}

async fn a_loss_is_told_at_once_to_those_who_ask_later(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    let (first, second) = (guard.lost(), guard.lost());
    context.inflict(Fault::ExpireLease, guard.key()).await?;
    let reason = is_lost(context, &guard).await?;
    for lost in [first, second, guard.lost()] {
        ensure_eq!(lost.reason(), Some(reason), "the reason is");
        let told = tokio::time::timeout(Duration::from_secs(2), lost.clone()).await?;
        ensure_eq!(told, reason, "the signal says");
        let waited = tokio::task::spawn_blocking(move || lost.wait_for(Duration::from_secs(2)));
        ensure_eq!(waited.await?, Some(reason), "a blocking wait says");
    }
    ensure_eq!(
        guard.remaining(),
        Some(Duration::ZERO),
        "a lost lock has left"
    );
    Ok(())
}

async fn a_loss_stops_a_protected_future(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    let key = guard.key().clone();
    let protected = tokio::spawn(async move { guard.protect(std::future::pending::<()>()).await });
    context.inflict(Fault::ExpireLease, &key).await?;
    let limit = context.ttl() + context.patience();
    let stopped = tokio::time::timeout(limit, protected).await??;
    let kind = stopped.err().map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(lock_core::ErrorKind::Lost),
        "a protected future ended with"
    );
    Ok(())
}

async fn renew_and_release_after_takeover_change_nothing(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let (request, grant) = context.grant(lock.key()).await?;
    let renewal = renewal(context, lock.key(), &grant)?;
    context.inflict(Fault::ExpireLease, lock.key()).await?;
    let next = context
        .soon("the lock after expiry", other.acquire())
        .await??;
    let backend = context.backend();
    let renewed = backend.renew(&[renewal]).await?;
    ensure!(
        matches!(renewed[..], [Renewed::Lost]),
        "renewing an expired lease gave {renewed:?}"
    );
    let released = backend.release(lock.key(), &grant).finish().await?;
    ensure_eq!(released, Released::AlreadyLost, "release said");
    backend.abandon(lock.key(), request.attempt);
    let report = context.report(&other).await?;
    let holders: Vec<_> = report.holders.iter().map(|party| party.attempt).collect();
    ensure_eq!(holders, vec![next.attempt()], "holders");
    ensure_eq!(
        next.release().await?,
        Released::Released,
        "the next holder's release said"
    );
    Ok(())
}

async fn a_deleted_record_is_signalled_as_lost(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    context.inflict(Fault::DeleteRecord, guard.key()).await?;
    is_lost(context, &guard).await?;
    ensure_eq!(
        guard.release().await?,
        Released::AlreadyLost,
        "release said"
    );
    context.becomes_free(&context.lock_elsewhere("a")?).await
}

async fn a_hung_server_is_a_loss_before_the_lease_ends(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    context.inflict(Fault::Stall, guard.key()).await?;
    let stalled = Instant::now();
    let outcome = is_lost(context, &guard).await;
    let took = Instant::now().saturating_duration_since(stalled);
    context.inflict(Fault::Resume, guard.key()).await?;
    outcome?;
    let slack = Duration::from_secs(2);
    ensure!(
        took <= context.ttl() + slack,
        "lost only {took:?} after the server went silent"
    );
    Ok(())
}

async fn a_short_silence_is_no_loss(context: &Context) -> Outcome {
    let guard = hold(context).await?;
    context.inflict(Fault::Stall, guard.key()).await?;
    // sleep: shorter than what a renewal at a third of the lease leaves
    tokio::time::sleep(context.ttl() / 4).await;
    context.inflict(Fault::Resume, guard.key()).await?;
    let early = tokio::time::timeout(context.ttl() * 2, guard.lost()).await;
    ensure!(early.is_err(), "a transient error was a loss: {early:?}");
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    Ok(())
}
