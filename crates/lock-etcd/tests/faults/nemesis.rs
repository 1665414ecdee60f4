//! One fault after another, while clients lock and release.

use std::sync::Arc;
use std::time::Duration;

use lock_core::LockBackend;
use lock_core::clock::Instant;
use lock_testkit::faulty::{Defect, Faulty};
use lock_testkit::services::etcd::EtcdCluster;
use lock_testkit::stress::{self, Plan, Verdict};
use lock_testkit::{Failure, Outcome};

use crate::support::{Client, Proxied, eventually};

const CLIENTS: usize = 3;
/// How long each fault lasts, and how long there is none after it.
const WHILE: Duration = Duration::from_millis(700);

/// One fault after another until then, each of them healed before the next.
async fn torment(servers: &Proxied, until: Instant) -> Outcome<usize> {
    let nodes = servers.cluster.nodes();
    let mut faults = 0;
    while !until.has_passed() {
        let victim = faults % nodes.len();
        // No two rounds are alike: five faults, three victims.
        let fault = faults % 5;
        match fault {
            0 => nodes[servers.cluster.leader()?].stop()?,
            1 => servers.proxies[victim].partition(),
            2 => servers.cut(),
            3 => nodes[victim].kill()?,
            _ => servers.delay(Duration::from_millis(50)),
        }
        // sleep: as long as the fault lasts
        tokio::time::sleep(WHILE).await;
        match fault {
            0 => nodes.iter().try_for_each(|node| node.resume())?,
            3 => servers.cluster.start_node(victim)?,
            _ => servers.heal(),
        }
        // sleep: some work between two faults
        tokio::time::sleep(WHILE).await;
        faults += 1;
    }
    Ok(faults)
}

fn clients(servers: &Proxied) -> Outcome<Vec<Arc<dyn LockBackend>>> {
    (0..CLIENTS)
        .map(|_| Ok(Client::with(servers.config())?.0))
        .collect()
}

async fn judged(servers: &Proxied, clients: Vec<Arc<dyn LockBackend>>) -> Outcome<Verdict> {
    let directory = tempfile::tempdir()?;
    let capabilities = clients[0].capabilities();
    let mut plan = Plan::new("nemesis", &capabilities, directory.path().to_owned());
    plan.trouble = true;
    plan.duration = stress::duration().max(WHILE * 14);
    let until = Instant::now() + plan.duration;
    let (verdict, faults) = tokio::join!(stress::run_here(clients, &plan), torment(servers, until));
    assert!(faults? > 5);
    verdict
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_servers_holders_exclude_each_other() -> Outcome {
    let servers = Proxied::before(EtcdCluster::of_three()?)?;
    judged(&servers, clients(&servers)?).await?;
    // All is free again, and nothing is left that could stand in a way.
    eventually("an empty store", async || {
        Ok(servers.cluster.keys("locks/locks/")?.is_empty())
    })
    .await?;
    Client::of(&servers.cluster)?
        .acquire("key-0")
        .await?
        .release()
        .await?;

    // The control: the same with clients that let in whoever asks.
    let broken = clients(&servers)?.into_iter().map(|client| {
        let broken: Arc<dyn LockBackend> = Arc::new(Faulty::new(client, Defect::GrantsTwice));
        broken
    });
    match judged(&servers, broken.collect()).await {
        Err(failure) if failure.message().contains("violations") => Ok(()),
        other => Err(Failure::new(format!("nothing was noticed: {other:?}"))),
    }
}
