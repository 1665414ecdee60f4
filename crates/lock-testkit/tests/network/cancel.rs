//! Dropping at every await point leaves nothing.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use lock_core::{Acquire, InspectQuery, LockGuard};
use lock_testkit::network::{Fate, Kind, Leg, Plant, Server};

use super::faults::patient;
use super::setup::{Client, Verdict, ensure, eventually, granted, key, nothing_left, server, soon};

/// Where an acquire or a release is when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Unpolled,
    RequestUnderWay,
    /// It arrives when the server has confirmed the cancel.
    RequestOvertaken,
    ReplyUnderWay,
    ReplyLost,
    Queued,
    OfferUnderWay,
    ClaimUnderWay,
    ClaimReplyUnderWay,
    GrantNotTaken,
    Held,
    ReleaseUnpolled,
    ReleaseUnderWay,
    ReleaseReplyUnderWay,
    ReleaseReplyLost,
}

use Point::*;

const POINTS: [Point; 15] = [
    Unpolled,
    RequestUnderWay,
    RequestOvertaken,
    ReplyUnderWay,
    ReplyLost,
    Queued,
    OfferUnderWay,
    ClaimUnderWay,
    ClaimReplyUnderWay,
    GrantNotTaken,
    Held,
    ReleaseUnpolled,
    ReleaseUnderWay,
    ReleaseReplyUnderWay,
    ReleaseReplyLost,
];

/// What else goes wrong with the cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    CancelLost,
    CancelReplyLost,
    ConnectionKilled,
}

const TROUBLES: [Trouble; 4] = [
    Trouble::None,
    Trouble::CancelLost,
    Trouble::CancelReplyLost,
    Trouble::ConnectionKilled,
];

pub(crate) async fn a_drop_anywhere_leaves_nothing(plant: Option<Plant>) -> Verdict {
    for trouble in TROUBLES {
        for point in POINTS {
            drop_at(plant, point, trouble)
                .await
                .map_err(|wrong| format!("dropped at {point:?} with {trouble:?}: {wrong}"))?;
        }
    }
    Ok(())
}

async fn drop_at(plant: Option<Plant>, point: Point, trouble: Trouble) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    // Asking again would be granted what is to be claimed.
    let client = match point {
        ClaimUnderWay | ClaimReplyUnderWay => patient(&server),
        _ => Client::new(&server),
    };
    let other = Client::new(&server);
    let id = client.id();
    let wants_contention = matches!(
        point,
        Queued | OfferUnderWay | ClaimUnderWay | ClaimReplyUnderWay
    );
    let held = if wants_contention {
        Some(granted("the other's grant", other.lock(&key).acquire()).await?)
    } else {
        None
    };
    match point {
        RequestUnderWay | RequestOvertaken => {
            server.next(id, Leg::Request, Kind::Acquire, Fate::Held, 1);
        }
        // Held at first, or the first poll might be answered.
        ReplyUnderWay | GrantNotTaken => server.next(id, Leg::Reply, Kind::Acquire, Fate::Held, 1),
        ReplyLost => server.next(id, Leg::Reply, Kind::Acquire, Fate::Lost, 1),
        OfferUnderWay => server.next(id, Leg::Push, Kind::Offer, Fate::Held, 1),
        ClaimUnderWay => server.next(id, Leg::Request, Kind::Claim, Fate::Held, 1),
        ClaimReplyUnderWay => server.next(id, Leg::Reply, Kind::Claim, Fate::Held, 1),
        ReleaseUnderWay => server.next(id, Leg::Request, Kind::Release, Fate::Held, 1),
        ReleaseReplyUnderWay => server.next(id, Leg::Reply, Kind::Release, Fate::Held, 1),
        ReleaseReplyLost => server.next(id, Leg::Reply, Kind::Release, Fate::Lost, 1),
        _ => {}
    }
    match trouble {
        Trouble::CancelLost => server.next(id, Leg::Request, Kind::Cancel, Fate::Lost, 1),
        Trouble::CancelReplyLost => server.next(id, Leg::Reply, Kind::Cancel, Fate::Lost, 1),
        Trouble::None | Trouble::ConnectionKilled => {}
    }
    match point {
        Held | ReleaseUnpolled | ReleaseUnderWay | ReleaseReplyUnderWay | ReleaseReplyLost => {
            let guard = granted("grant", client.lock(&key).acquire()).await?;
            drop_guard(&server, &client, point, guard, trouble).await?;
        }
        _ => {
            let acquire = client.lock(&key).acquire();
            drop_acquire(&server, &client, point, acquire, held, trouble).await?;
        }
    }
    if point != Unpolled {
        // Or the trouble would be over before the driver has come to it.
        eventually("the trouble comes", || server.faults_outstanding() == 0).await?;
    }
    if point == RequestOvertaken {
        eventually("the cancel is confirmed", || client.network.debts() == 0).await?;
    }
    server.let_go();
    server.heal();
    nothing_left(&server, &[&other, &client]).await?;
    // The key is as good as new.
    let again = granted("grant afterwards", other.lock(&key).acquire()).await?;
    drop(again);
    nothing_left(&server, &[&other, &client]).await
}

async fn drop_acquire(
    server: &Server,
    client: &Client,
    point: Point,
    mut acquire: Acquire,
    held: Option<LockGuard>,
    trouble: Trouble,
) -> Verdict {
    let key = key("a");
    if point != Unpolled {
        poll(&mut acquire);
    }
    match point {
        Queued => eventually("it waits", || server.report(&key).waiters.len() == 1).await?,
        OfferUnderWay | ClaimUnderWay | ClaimReplyUnderWay => {
            eventually("it waits", || server.report(&key).waiters.len() == 1).await?;
            drop(held);
            eventually("the message is under way", || server.held_messages() == 1).await?;
        }
        RequestUnderWay | RequestOvertaken | ReplyUnderWay => {
            eventually("the message is under way", || server.held_messages() == 1).await?;
        }
        GrantNotTaken => {
            eventually("the message is under way", || server.held_messages() == 1).await?;
            server.let_go();
        }
        ReplyLost => {
            eventually("the server granted it", || {
                server.report(&key).holders.len() == 1
            })
            .await?;
        }
        _ => {}
    }
    if trouble == Trouble::ConnectionKilled {
        server.kill_connection(client.id());
    }
    drop(acquire);
    Ok(())
}

async fn drop_guard(
    server: &Server,
    client: &Client,
    point: Point,
    guard: LockGuard,
    trouble: Trouble,
) -> Verdict {
    if point == Held {
        drop(guard);
        return Ok(());
    }
    let mut release = Box::pin(guard.release());
    if point != ReleaseUnpolled {
        let waiting = release
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        ensure(waiting.is_pending(), || {
            "the release needed no server".into()
        })?;
    }
    match point {
        ReleaseUnderWay | ReleaseReplyUnderWay => {
            eventually("the message is under way", || server.held_messages() == 1).await?;
        }
        ReleaseReplyLost => {
            eventually("it is lost", || {
                let of_cancel = matches!(trouble, Trouble::CancelLost | Trouble::CancelReplyLost);
                server.faults_outstanding() <= usize::from(of_cancel)
            })
            .await?;
        }
        _ => {}
    }
    if trouble == Trouble::ConnectionKilled {
        server.kill_connection(client.id());
    }
    drop(release);
    Ok(())
}

fn poll(acquire: &mut Acquire) {
    let outcome = Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()));
    assert!(outcome.is_pending(), "an acquire over a network waits");
}

pub(crate) async fn a_debt_is_seen_until_it_is_paid(plant: Option<Plant>) -> Verdict {
    let (server, key) = (server(plant), key("a"));
    let client = Client::new(&server);
    let guard = granted("grant", client.lock(&key).acquire()).await?;
    let attempt = guard.attempt();
    server.every(client.id(), Leg::Request, Kind::Cancel, Fate::Lost);
    drop(guard);
    let page = soon(
        "answer",
        client.backend.inspect(InspectQuery::key(key.clone())),
    )
    .await?;
    let page = page.map_err(|error| error.to_string())?;
    let debts: Vec<_> = page
        .keys
        .iter()
        .flat_map(|report| report.debts.clone())
        .collect();
    ensure(debts == [attempt], || format!("the debts are {debts:?}"))?;
    server.heal();
    nothing_left(&server, &[&client]).await
}

pub(crate) async fn many_cancels_leave_nothing(plant: Option<Plant>) -> Verdict {
    let server = server(plant);
    let clients = [
        Client::new(&server),
        Client::new(&server),
        Client::new(&server),
    ];
    let key = key("a");
    let mut tasks = Vec::new();
    for (number, client) in clients.iter().cycle().take(24).enumerate() {
        let lock = client.lock(&key);
        tasks.push(tokio::spawn(async move {
            for round in 0..20_u64 {
                let patience = (number as u64 * 7 + round * 13) % 6;
                let acquire = lock.acquire();
                let _ = tokio::time::timeout(Duration::from_millis(patience), acquire).await;
            }
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())?;
    }
    nothing_left(&server, &clients.iter().collect::<Vec<_>>()).await
}
