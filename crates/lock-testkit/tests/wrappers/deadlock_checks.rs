//! A cycle over two clients has one victim, soon; without a cycle there is none.

use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{AcquireOptions, ErrorKind, Lock, LockGuard, LockKey, OwnerId};
use lock_testkit::network::Server;
use tokio::task::JoinHandle;

use super::deadlock::CrossDeadlock;
use crate::setup::{Client, eventually, granted, joined, key, nothing_left, server, soon};

/// A process with detection, and one owner in it.
struct Process {
    client: Client,
    detection: CrossDeadlock,
    owner: OwnerId,
}

type Pending = JoinHandle<lock_core::Result<LockGuard>>;

impl Process {
    fn new(server: &Server) -> Self {
        let client = Client::new(server);
        let detection = CrossDeadlock::new(Arc::clone(&client.backend));
        let owner = OwnerId::new();
        Self {
            client,
            detection,
            owner,
        }
    }

    fn lock(&self, key: &LockKey) -> Lock {
        let options = AcquireOptions::new().owner(self.owner);
        Lock::new(Arc::new(self.detection.clone()), key.clone()).with_options(options)
    }

    async fn hold(&self, key: &LockKey) -> LockGuard {
        granted("grant", self.lock(key).acquire())
            .await
            .expect("a free key")
    }

    fn ask(&self, key: &LockKey) -> Pending {
        tokio::spawn(self.lock(key).acquire())
    }
}

async fn one_victim_in_a_ring(length: usize) {
    let server = server(None);
    let processes: Vec<Process> = (0..length).map(|_| Process::new(&server)).collect();
    let keys: Vec<LockKey> = (0..length).map(|n| key(&format!("ring/{n}"))).collect();
    let mut held = Vec::new();
    for (process, key) in processes.iter().zip(&keys) {
        held.push(process.hold(key).await);
    }
    let mut waits: Vec<Pending> = Vec::new();
    for (number, process) in processes.iter().enumerate() {
        waits.push(process.ask(&keys[(number + 1) % length]));
    }
    let all_wait = || keys.iter().all(|key| server.report(key).waiters.len() == 1);
    eventually("everyone waits", all_wait)
        .await
        .expect("nothing fails");
    let attempts = keys.iter().map(|key| server.report(key).waiters[0].attempt);
    // The waiter of key n is process n - 1.
    let (victim, _) = attempts
        .enumerate()
        .max_by_key(|(_, attempt)| *attempt)
        .expect("nothing fails");
    let victim = (victim + length - 1) % length;
    let closed = Instant::now();
    let error = soon("victim", joined(waits.remove(victim)))
        .await
        .expect("nothing fails")
        .expect_err("a victim");
    let took = Instant::now().saturating_duration_since(closed);
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    let owners: Vec<OwnerId> = error.cycle().iter().map(|edge| edge.owner).collect();
    assert_eq!(owners.len(), length);
    assert!(
        processes
            .iter()
            .all(|process| owners.contains(&process.owner))
    );
    // sleep: several looks at the store
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = waits.iter().filter(|wait| wait.is_finished()).count();
    assert_eq!(more, 0, "one victim is enough");
    drop(held);
    for wait in waits {
        drop(
            soon("grant", joined(wait))
                .await
                .expect("nothing fails")
                .expect("nothing fails"),
        );
    }
    let clients: Vec<&Client> = processes.iter().map(|process| &process.client).collect();
    nothing_left(&server, &clients)
        .await
        .expect("nothing fails");
    for process in &processes {
        assert_eq!(process.detection.waiting(), 0);
    }
}

#[tokio::test]
async fn a_cycle_of_two_processes_has_one_victim() {
    one_victim_in_a_ring(2).await;
}

#[tokio::test]
async fn a_cycle_of_three_processes_has_one_victim() {
    one_victim_in_a_ring(3).await;
}

#[tokio::test]
async fn a_long_wait_without_a_cycle_has_no_victim() {
    let server = server(None);
    let (a, b, c) = (
        Process::new(&server),
        Process::new(&server),
        Process::new(&server),
    );
    let (x, y) = (key("x"), key("y"));
    let (held_x, held_y) = (a.hold(&x).await, b.hold(&y).await);
    // A chain: c waits for b, b waits for a.
    let (b_waits, c_waits) = (b.ask(&x), c.ask(&y));
    // sleep: several looks at the store
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!b_waits.is_finished() && !c_waits.is_finished());
    drop(held_x);
    drop(soon("grant", joined(b_waits)).await.unwrap().unwrap());
    drop(held_y);
    drop(soon("grant", joined(c_waits)).await.unwrap().unwrap());
    nothing_left(&server, &[&a.client, &b.client, &c.client])
        .await
        .unwrap();
}
