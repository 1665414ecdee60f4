//! Leases: in time, not too early, and never again once they are over.

use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{LossReason, Released};
use lock_testkit::network::{Fate, Kind, Leg, Plant};

use super::setup::{Client, Verdict, ensure, eventually, granted, key, nothing_left, server, soon};

pub(crate) async fn loss_comes_before_the_lease_ends(plant: Option<Plant>) -> Verdict {
    for hang in [true, false] {
        let (server, key) = (server(plant), key("a"));
        let client = Client::new(&server);
        // Slow replies: a deadline that counts from them is late.
        server.set_latency(Duration::ZERO, Duration::from_millis(400));
        let lock = client.leased(&key, Duration::from_secs(1));
        let guard = granted("grant", lock.acquire()).await?;
        if hang {
            server.hang();
        } else {
            server.partition(client.id());
        }
        let end = server.lease_end(guard.attempt()).ok_or("no lease")?;
        let reason = soon("loss signal", guard.lost()).await?;
        let signalled = Instant::now();
        ensure(signalled <= end, || {
            let late = signalled.saturating_duration_since(end);
            format!("signalled {late:?} after the server may have given it away")
        })?;
        ensure(reason == LossReason::Expired, || {
            format!("lost because {reason}")
        })?;
        server.heal();
        drop(guard);
        nothing_left(&server, &[&client]).await?;
    }
    Ok(())
}

pub(crate) async fn no_false_alarm_over_ten_lives(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    // A process that is not run for half a life has lost its lease, and that is no false alarm.
    let ttl = Duration::from_secs(2);
    let guard = granted("grant", client.leased(&key, ttl).acquire()).await?;
    // Transient errors are no losses.
    server.next(client.id(), Leg::Reply, Kind::Renew, Fate::Lost, 1);
    let lost = guard.lost();
    let alarm = tokio::time::timeout(ttl * 10, lost).await;
    ensure(alarm.is_err(), || {
        format!("lost without a cause: {alarm:?}")
    })?;
    ensure(server.faults_outstanding() == 0, || {
        "nothing was renewed".into()
    })?;
    let released = soon("release", guard.release()).await?;
    ensure(matches!(released, Ok(Released::Released)), || {
        format!("{released:?}")
    })?;
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn a_late_renewal_does_not_resurrect(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    server.every(client.id(), Leg::Request, Kind::Renew, Fate::Held);
    let lock = client.leased(&key, Duration::from_secs(2));
    let guard = granted("grant", lock.acquire()).await?;
    eventually("a renewal is under way", || server.held_messages() > 0).await?;
    let released = soon("release", guard.release()).await?;
    ensure(matches!(released, Ok(Released::Released)), || {
        format!("{released:?}")
    })?;
    server.heal();
    server.let_go();
    let stored = server.stored();
    ensure(stored.is_empty(), || {
        format!("the late renewal made {stored:?}")
    })?;
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn a_broken_holder_hears_of_it(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, operator) = (Client::new(&server), Client::new(&server));
    let guard = granted("grant", holder.lock(&key).acquire()).await?;
    let broken = soon("answer", operator.backend.break_lock(&key, None)).await?;
    ensure(matches!(broken, Ok(1)), || format!("{broken:?}"))?;
    let reason = soon("loss signal", guard.lost()).await?;
    ensure(reason == LossReason::Revoked, || {
        format!("lost because {reason}")
    })?;
    drop(guard);
    nothing_left(&server, &[&holder, &operator]).await
}

pub(crate) async fn a_release_is_no_loss(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    let ttl = Duration::from_millis(500);
    let guard = granted("grant", client.leased(&key, ttl).acquire()).await?;
    let lost = guard.lost();
    let released = soon("release", guard.release()).await?;
    ensure(matches!(released, Ok(Released::Released)), || {
        format!("{released:?}")
    })?;
    let dropped = granted("grant", client.leased(&key, ttl).acquire()).await?;
    let also = dropped.lost();
    drop(dropped);
    // sleep: until the lease, had it gone on, would have ended
    tokio::time::sleep(ttl * 2).await;
    ensure(lost.reason().is_none() && also.reason().is_none(), || {
        "a plain release counted as a loss".into()
    })?;
    nothing_left(&server, &[&client]).await
}
