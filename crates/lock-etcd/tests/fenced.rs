//! Writes that the servers refuse once the lock is lost.

use std::sync::Arc;

use lock_core::{AcquireOptions, ErrorKind, Lock, LockBackend, LockGuard, LockKey, Mode, Result};
use lock_etcd::{Condition, EtcdBackend, EtcdConfig, EtcdGuard, EtcdOutcome};
use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

const KEY: &str = "data/rate";

struct World {
    cluster: EtcdCluster,
    backend: Arc<dyn LockBackend>,
}

impl World {
    fn new() -> Outcome<Self> {
        let cluster = EtcdCluster::single()?;
        let config = EtcdConfig::with_endpoints(cluster.endpoints());
        let backend = Arc::new(EtcdBackend::open(config)?);
        Ok(Self { cluster, backend })
    }

    fn lock(&self, epoch: u32) -> Result<Lock> {
        let backend = Arc::clone(&self.backend);
        Ok(Lock::with_epoch(backend, LockKey::new("a")?, epoch))
    }

    fn stored(&self) -> Outcome<String> {
        let found = self.cluster.control(&["get", KEY, "--print-value-only"])?;
        Ok(found.trim().to_owned())
    }
}

async fn write(guard: &LockGuard, value: &str) -> Result<EtcdOutcome> {
    let transaction = guard.fenced_transaction()?;
    transaction.put(KEY, value).read(KEY).commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_writes_and_reads_what_it_wrote() -> Outcome {
    let world = World::new()?;
    let guard = world.lock(0)?.acquire().await?;
    for value in ["one", "two"] {
        match write(&guard, value).await? {
            EtcdOutcome::Committed { read, .. } => {
                let found = read.into_iter().flatten().next();
                assert_eq!(found.map(|entry| entry.value), Some(value.into()));
            }
            other => panic!("a holder's write gave {other:?}"),
        }
    }
    let missing = guard.fenced_transaction()?;
    let refused = missing
        .when(Condition::Missing(KEY.into()))
        .put(KEY, "three")
        .commit()
        .await?;
    assert_eq!(refused, EtcdOutcome::ConditionFailed);
    assert_eq!(world.stored()?, "two");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_holder_is_refused_before_it_hears_of_it() -> Outcome {
    let world = World::new()?;
    let guard = world.lock(0)?.acquire().await?;
    write(&guard, "before").await?;
    // Deleted behind its back; another client's break would be the same.
    world
        .cluster
        .control(&["del", "locks/locks/", "--prefix"])?;
    let refused = write(&guard, "after").await.expect_err("a lost lock");
    assert_eq!(refused.kind(), ErrorKind::Lost);
    assert_eq!(world.stored()?, "before");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_token_is_refused_though_its_holder_holds() -> Outcome {
    let world = World::new()?;
    let later = world.lock(1)?.acquire().await?;
    write(&later, "later").await?;
    later.release().await?;
    let earlier = world.lock(0)?.acquire().await?;
    assert!(earlier.is_held());
    let refused = write(&earlier, "earlier").await.expect_err("a stale token");
    assert_eq!(refused.kind(), ErrorKind::Lost);
    assert_eq!(world.stored()?, "later");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_write_has_no_transaction() -> Outcome {
    let world = World::new()?;
    let shared = AcquireOptions::new().mode(Mode::Shared);
    let guard = world.lock(0)?.acquire_with(&shared).await?;
    let refused = guard.fenced_transaction().expect_err("a shared hold");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    Ok(())
}
