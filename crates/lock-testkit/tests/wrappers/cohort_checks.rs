//! The cohort under load, cancellation and loss.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use lock_core::{FencedRegister, Lock, LockKey, LossReason};
use lock_testkit::network::{Fate, Kind, Leg, Server};

use super::cohort::Cohort;
use crate::setup::{Client, eventually, granted, joined, key, nothing_left, server, soon};

/// A process with a cohort.
struct Process {
    client: Client,
    cohort: Cohort,
}

impl Process {
    fn new(server: &Server, bound: u32) -> Self {
        let client = Client::new(server);
        let cohort = Cohort::new(Arc::clone(&client.backend), bound);
        Self { client, cohort }
    }

    fn lock(&self, key: &LockKey) -> Lock {
        Lock::new(Arc::new(self.cohort.clone()), key.clone())
    }

    fn asked(&self, server: &Server) -> usize {
        server.arrived(self.client.id(), Kind::Acquire)
    }
}

async fn clean(server: &Server, processes: &[&Process]) {
    let clients: Vec<&Client> = processes.iter().map(|process| &process.client).collect();
    let verdict = nothing_left(server, &clients).await;
    assert_eq!(verdict, Ok(()));
    for process in processes {
        assert_eq!(process.cohort.keys_in_use(), 0);
    }
}

fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    let context = &mut Context::from_waker(Waker::noop());
    future.as_mut().poll(context).is_ready()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_and_rising_tokens_over_all_hand_overs() {
    let (server, key) = (server(None), key("a"));
    let processes = [Process::new(&server, 8), Process::new(&server, 8)];
    let inside = Arc::new(AtomicBool::new(false));
    let history = Arc::new(FencedRegister::new(Vec::new()));
    let mut tasks = Vec::new();
    for process in processes.iter().cycle().take(8) {
        let (lock, inside, history) = (process.lock(&key), inside.clone(), history.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                let guard = lock.acquire().await.unwrap();
                assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                let token = guard.fencing_token().unwrap();
                history.write(token, |tokens| tokens.push(token)).unwrap();
                tokio::task::yield_now().await;
                inside.store(false, Ordering::SeqCst);
                guard.release().await.unwrap();
            }
        }));
    }
    for task in tasks {
        joined(task).await;
    }
    history.read(|tokens| {
        assert_eq!(tokens.len(), 200);
        assert!(
            tokens.is_sorted_by(|a, b| a < b),
            "two grants with one token"
        );
        let local = tokens.iter().zip(&tokens[1..]);
        let local = local.filter(|(a, b)| a.number().base() == b.number().base());
        assert!(
            local.count() > 50,
            "hardly anything was handed over in here"
        );
    });
    clean(&server, &[&processes[0], &processes[1]]).await;
}

#[tokio::test]
async fn another_process_gets_in_within_the_bound() {
    let (server, key) = (server(None), key("a"));
    let (busy, other) = (Process::new(&server, 3), Process::new(&server, 3));
    let first = granted("first grant", busy.lock(&key).acquire())
        .await
        .unwrap();
    let (before, done) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (lock, before, done) = (busy.lock(&key), before.clone(), done.clone());
        tasks.push(tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            if !done.load(Ordering::SeqCst) {
                before.fetch_add(1, Ordering::SeqCst);
            }
            guard.release().await.unwrap();
        }));
    }
    tokio::task::yield_now().await;
    let lock = other.lock(&key);
    let waiting = tokio::spawn(async move {
        let guard = lock.acquire().await.unwrap();
        done.store(true, Ordering::SeqCst);
        guard.release().await.unwrap();
    });
    eventually("it waits outside", || {
        server.report(&key).waiters.len() == 1
    })
    .await
    .unwrap();
    first.release().await.unwrap();
    soon("grant to the other process", joined(waiting))
        .await
        .unwrap();
    let before = before.load(Ordering::SeqCst);
    assert!(before <= 3, "{before} went before, at most 3 may");
    for task in tasks {
        joined(task).await;
    }
    clean(&server, &[&busy, &other]).await;
}

#[tokio::test]
async fn a_cancelled_head_passes_its_place_outside_on() {
    let (server, key) = (server(None), key("a"));
    let (holder, process) = (Process::new(&server, 8), Process::new(&server, 8));
    let held = granted("first grant", holder.lock(&key).acquire())
        .await
        .unwrap();
    let mut head = Box::pin(process.lock(&key).acquire());
    let mut next = Box::pin(process.lock(&key).acquire());
    assert!(!poll_once(&mut head) && !poll_once(&mut next));
    let waiters = || server.report(&key).waiters;
    eventually("one waits outside", || waiters().len() == 1)
        .await
        .unwrap();
    let place = waiters()[0].attempt;
    drop(head);
    held.release().await.unwrap();
    let guard = granted("grant to the next head", next).await.unwrap();
    let holders = server.report(&key).holders;
    assert_eq!(holders[0].attempt, place, "it competed anew");
    drop(guard);
    clean(&server, &[&holder, &process]).await;
}

#[tokio::test]
async fn a_storm_of_cancels_leaves_nothing() {
    let (server, key) = (server(None), key("a"));
    let processes = [Process::new(&server, 2), Process::new(&server, 2)];
    server.next(
        processes[0].client.id(),
        Leg::Request,
        Kind::Cancel,
        Fate::Lost,
        5,
    );
    server.next(
        processes[1].client.id(),
        Leg::Reply,
        Kind::Acquire,
        Fate::Lost,
        5,
    );
    let mut tasks = Vec::new();
    for (number, process) in processes.iter().cycle().take(16).enumerate() {
        let lock = process.lock(&key);
        tasks.push(tokio::spawn(async move {
            for round in 0..20_u64 {
                let patience = Duration::from_millis((number as u64 * 7 + round * 13) % 6);
                let outcome = tokio::time::timeout(patience, lock.acquire()).await;
                if let Ok(Ok(guard)) = outcome
                    && round % 2 == 0
                {
                    let _ = tokio::time::timeout(Duration::ZERO, guard.release()).await;
                }
            }
        }));
    }
    for task in tasks {
        joined(task).await;
    }
    server.heal();
    clean(&server, &[&processes[0], &processes[1]]).await;
}

#[tokio::test]
async fn a_release_dropped_anywhere_leaves_nothing() {
    let (server, key) = (server(None), key("a"));
    let process = Process::new(&server, 8);
    for polled in [false, true] {
        let guard = granted("grant", process.lock(&key).acquire())
            .await
            .unwrap();
        let mut release = Box::pin(guard.release());
        if polled {
            // Held, or the I/O thread may answer within the first poll.
            let id = process.client.id();
            server.next(id, Leg::Reply, Kind::Release, Fate::Held, 1);
            assert!(!poll_once(&mut release), "the release needed no server");
            eventually("it is under way", || server.held_messages() == 1)
                .await
                .unwrap();
        }
        drop(release);
        server.let_go();
        clean(&server, &[&process]).await;
    }
    // The step itself, which a wrapper outside may drop.
    let backend: Arc<dyn lock_core::LockBackend> = Arc::new(process.cohort.clone());
    let request = lock_core::AcquireOptions::new()
        .to_request(lock_core::Wait::Forever)
        .unwrap();
    let grant = backend
        .acquire(&key, &request)
        .finish()
        .await
        .unwrap()
        .unwrap();
    drop(backend.release(&key, &grant));
    clean(&server, &[&process]).await;
}

#[tokio::test]
async fn a_lost_grant_is_not_handed_over() {
    let (server, key) = (server(None), key("a"));
    let process = Process::new(&server, 8);
    let guard = granted("first grant", process.lock(&key).acquire())
        .await
        .unwrap();
    let mut next = Box::pin(process.lock(&key).acquire());
    assert!(!poll_once(&mut next));
    assert_eq!(server.break_holder(&key, None), 1);
    let reason = soon("loss signal", guard.lost()).await.unwrap();
    assert_eq!(reason, LossReason::Revoked);
    drop(guard);
    let guard = granted("grant from outside", next).await.unwrap();
    assert!(guard.is_held());
    assert_eq!(process.asked(&server), 2);
    drop(guard);
    clean(&server, &[&process]).await;
}

#[tokio::test]
async fn a_loss_after_a_hand_over_is_not_the_releasers() {
    let (server, key) = (server(None), key("a"));
    let process = Process::new(&server, 8);
    let first = granted("first grant", process.lock(&key).acquire())
        .await
        .unwrap();
    let mut second = Box::pin(process.lock(&key).acquire());
    assert!(!poll_once(&mut second));
    let released = first.lost();
    first.release().await.unwrap();
    let second = granted("hand-over", second).await.unwrap();
    assert_eq!(process.asked(&server), 1, "it was not handed over in here");
    server.break_holder(&key, None);
    soon("loss signal", second.lost()).await.unwrap();
    assert_eq!(released.reason(), None, "a plain release counted as a loss");
    drop(second);
    clean(&server, &[&process]).await;
}

#[tokio::test]
async fn a_detached_lock_leaves_the_cohort() {
    let (server, key) = (server(None), key("a"));
    let (here, there) = (Process::new(&server, 8), Process::new(&server, 8));
    let guard = granted("grant", here.lock(&key).acquire()).await.unwrap();
    let text = guard.detach().await.unwrap().to_string();
    assert_eq!(here.cohort.keys_in_use(), 0);
    let guard = there
        .lock(&key)
        .attach(text.parse().unwrap())
        .await
        .unwrap();
    assert!(here.lock(&key).try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    clean(&server, &[&here, &there]).await;
}
