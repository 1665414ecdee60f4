//! Messages lost, late, doubled and out of date; connections and servers that come and go.

use std::time::Duration;

use futures_shim::poll_once;
use lock_core::{FencedRegister, Released};
use lock_testkit::network::{Fate, Keep, Kind, Leg, NetworkConfig, Plant, Server};

use super::setup::{
    Client, Verdict, ensure, eventually, granted, joined, key, nothing_left, server, soon, steadily,
};

const WHILE: Duration = Duration::from_millis(250);

/// A client that relies on pushes for a long time.
pub(crate) fn patient(server: &Server) -> Client {
    let mut config = NetworkConfig::default();
    config.request_timeout = Duration::from_millis(200);
    config.ask_again = Duration::from_secs(60);
    Client::with(server, config)
}

pub(crate) async fn a_lost_reply_gives_the_same_grant(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    server.next(client.id(), Leg::Reply, Kind::Acquire, Fate::Lost, 1);
    let guard = granted("grant after a lost reply", client.lock(&key).acquire()).await?;
    let holders = server.report(&key).holders;
    ensure(server.arrived(client.id(), Kind::Acquire) >= 2, || {
        "the reply was not lost".into()
    })?;
    ensure(
        holders.len() == 1 && holders[0].attempt == guard.attempt(),
        || format!("the server has other holders: {holders:?}"),
    )?;
    let number = guard.fencing_token().map(lock_core::FencingToken::number);
    ensure(number == holders[0].fencing, || {
        "the fence is another one".into()
    })?;
    drop(guard);
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn a_lost_push_does_not_lose_the_waiter(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, waiter) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    server.every(waiter.id(), Leg::Push, Kind::Offer, Fate::Lost);
    let waiting = tokio::spawn(waiter.lock(&key).acquire());
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    drop(held);
    let guard = granted("grant without a push", joined(waiting)).await?;
    drop(guard);
    nothing_left(&server, &[&holder, &waiter]).await
}

pub(crate) async fn a_late_push_gives_no_guard(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, late, next) = (Client::new(&server), patient(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    server.every(late.id(), Leg::Push, Kind::Offer, Fate::Held);
    let mut slow = Box::pin(late.lock(&key).acquire());
    ensure(poll_once(&mut slow).is_none(), || "granted twice".into())?;
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    let other = tokio::spawn(next.lock(&key).acquire());
    eventually("both wait", || server.report(&key).waiters.len() == 2).await?;
    drop(held);
    let other = granted("grant to the next one", joined(other)).await?;
    ensure(server.held_messages() > 0, || {
        "the push was not held".into()
    })?;
    server.heal();
    server.let_go();
    let until = lock_core::clock::Instant::now() + WHILE;
    while !until.has_passed() {
        ensure(poll_once(&mut slow).is_none(), || {
            "two guards: one by a late push".into()
        })?;
        // sleep: between two looks
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(other);
    let guard = granted("grant in the end", slow).await?;
    drop(guard);
    nothing_left(&server, &[&holder, &late, &next]).await
}

pub(crate) async fn a_doubled_push_gives_one_guard(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, client) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    server.every(client.id(), Leg::Push, Kind::Offer, Fate::Doubled);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut acquire = Box::pin(client.lock(&key).acquire());
        ensure(poll_once(&mut acquire).is_none(), || "granted twice".into())?;
        waiting.push(acquire);
    }
    eventually("both wait", || server.report(&key).waiters.len() == 2).await?;
    drop(held);
    let mut guards = Vec::new();
    let until = lock_core::clock::Instant::now() + WHILE;
    while !until.has_passed() || guards.is_empty() {
        waiting.retain_mut(|acquire| match poll_once(acquire) {
            Some(guard) => {
                guards.push(guard);
                false
            }
            None => true,
        });
        ensure(guards.len() <= 1, || {
            "a doubled push made two holders".into()
        })?;
        // sleep: between two looks
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    guards.clear();
    for acquire in waiting {
        drop(granted("second grant", acquire).await?);
    }
    nothing_left(&server, &[&holder, &client]).await
}

pub(crate) async fn a_late_release_does_not_free_the_next_holder(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (first, second) = (Client::new(&server), Client::new(&server));
    let stale = granted("first grant", first.lock(&key).acquire()).await?;
    server.expire(stale.attempt());
    let held = granted("second grant", second.lock(&key).acquire()).await?;
    let released = soon("release", stale.release()).await?;
    ensure(matches!(released, Ok(Released::AlreadyLost)), || {
        format!("a release of a lost lock said {released:?}")
    })?;
    let holders = server.report(&key).holders;
    ensure(
        holders.len() == 1 && holders[0].attempt == held.attempt(),
        || format!("the late release left {holders:?}"),
    )?;
    drop(held);
    nothing_left(&server, &[&first, &second]).await
}

pub(crate) async fn fencing_survives_an_empty_restart(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    let register = FencedRegister::new(0);
    let mut last = None;
    for round in 0..3 {
        let guard = granted("grant", client.lock(&key).acquire()).await?;
        let token = guard.fencing_token().ok_or("no token")?;
        ensure(last < Some(token), || format!("{token} after {last:?}"))?;
        register
            .write(token, |value| *value = round)
            .map_err(|stale| stale.to_string())?;
        last = Some(token);
        server.restart(Keep::Nothing);
        // Lost, which is seen at the latest now.
        let _ = soon("release", guard.release()).await?;
    }
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn fencing_survives_a_clock_turned_back(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    let mut last = None;
    for turn in [3600, -7200, 0] {
        let guard = granted("grant", client.lock(&key).acquire()).await?;
        let token = guard.fencing_token();
        ensure(last < token, || format!("{token:?} after {last:?}"))?;
        last = token;
        server.turn_clock(turn);
    }
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn an_empty_restart_is_noticed(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, waiter) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    let lost = held.lost();
    let waiting = tokio::spawn(waiter.lock(&key).acquire());
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    server.restart(Keep::Nothing);
    soon("loss signal", lost).await?;
    let guard = granted("grant after the restart", joined(waiting)).await?;
    ensure(!held.is_held() && guard.is_held(), || {
        "both or none hold".into()
    })?;
    drop((held, guard));
    nothing_left(&server, &[&holder, &waiter]).await
}

pub(crate) async fn a_restart_with_data_changes_nothing(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, waiter) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    let waiting = tokio::spawn(waiter.lock(&key).acquire());
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    server.restart(Keep::Data);
    server.kill_connection(holder.id());
    let hellos =
        || server.arrived(holder.id(), Kind::Hello) + server.arrived(waiter.id(), Kind::Hello);
    eventually("both are back", || hellos() >= 4).await?;
    steadily("it is held", WHILE, || held.is_held()).await?;
    let released = soon("release", held.release()).await?;
    ensure(matches!(released, Ok(Released::Released)), || {
        format!("{released:?}")
    })?;
    drop(granted("grant after the restart", joined(waiting)).await?);
    nothing_left(&server, &[&holder, &waiter]).await
}

pub(crate) async fn an_abandoned_attempt_is_not_asked_again(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, client) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    let mut acquire = Box::pin(client.lock(&key).acquire());
    ensure(poll_once(&mut acquire).is_none(), || "granted twice".into())?;
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    drop(acquire);
    server.kill_connection(client.id());
    eventually("it is back", || {
        server.arrived(client.id(), Kind::Hello) >= 2
    })
    .await?;
    eventually("the cancel is confirmed", || client.network.debts() == 0).await?;
    steadily("nobody waits", WHILE, || {
        server.report(&key).waiters.is_empty()
    })
    .await?;
    drop(held);
    nothing_left(&server, &[&holder, &client]).await
}

pub(crate) async fn an_old_connection_is_not_heard(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    drop(granted("first grant", client.lock(&key).acquire()).await?);
    nothing_left(&server, &[&client]).await?;
    server.next(client.id(), Leg::Request, Kind::Acquire, Fate::Held, 1);
    let mut acquire = Box::pin(client.lock(&key).acquire());
    ensure(poll_once(&mut acquire).is_none(), || {
        "granted at once".into()
    })?;
    eventually("the request is under way", || server.held_messages() == 1).await?;
    server.kill_connection(client.id());
    drop(acquire);
    eventually("it is back", || {
        server.arrived(client.id(), Kind::Hello) >= 2
    })
    .await?;
    nothing_left(&server, &[&client]).await?;
    server.let_go();
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn a_partitioned_holder_is_fenced_off(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, waiter) = (Client::new(&server), Client::new(&server));
    let register = FencedRegister::new("");
    let ttl = Duration::from_millis(600);
    let held = granted("first grant", holder.leased(&key, ttl).acquire()).await?;
    let stale = held.fencing_token().ok_or("no token")?;
    register
        .write(stale, |value| *value = "first")
        .map_err(|e| e.to_string())?;
    server.partition(holder.id());
    let guard = granted("grant to the other side", waiter.lock(&key).acquire()).await?;
    ensure(!held.is_held(), || {
        "two hold: the deadline of the first was too late".into()
    })?;
    let token = guard.fencing_token().ok_or("no token")?;
    register
        .write(token, |value| *value = "second")
        .map_err(|e| e.to_string())?;
    ensure(
        register.write(stale, |value| *value = "late").is_err(),
        || "a stale token was taken".into(),
    )?;
    server.heal();
    let released = soon("release", held.release()).await?;
    ensure(!matches!(released, Ok(Released::Released)), || {
        "released what was lost".into()
    })?;
    ensure(
        guard.is_held() && server.lease_end(guard.attempt()).is_some(),
        || "the healed side took the lock away".into(),
    )?;
    drop(guard);
    nothing_left(&server, &[&holder, &waiter]).await
}

pub(crate) async fn a_partitioned_waiter_gets_in_once_healed(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let (holder, waiter) = (Client::new(&server), Client::new(&server));
    let held = granted("first grant", holder.lock(&key).acquire()).await?;
    let waiting = tokio::spawn(waiter.lock(&key).acquire());
    eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
    server.partition(waiter.id());
    drop(held);
    // Its offer lapses unheard.
    eventually("the offer passes on", || server.stored().is_empty()).await?;
    server.heal();
    drop(granted("grant once healed", joined(waiting)).await?);
    nothing_left(&server, &[&holder, &waiter]).await
}

mod futures_shim {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    /// Polls a pending future once, without a waker.
    pub(crate) fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
