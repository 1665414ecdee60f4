//! Children made by `fork` while their parent is at work with the servers.

use std::sync::atomic::{AtomicBool, Ordering};

use lock_core::{ErrorKind, LockGuard, Released, block_on};
use lock_etcd::{EtcdGuard as _, EtcdOutcome};
use lock_testkit::Outcome;
use lock_testkit::fork::Forked;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::Client;

fn write(guard: &LockGuard) -> lock_core::Result<EtcdOutcome> {
    block_on(guard.fenced_transaction()?.put("written", "").commit())
}

fn pair(client: &Client, name: &str) -> Outcome {
    let guard = client.lock(name)?.acquire().wait()?;
    assert_eq!(guard.release_blocking()?, Released::Released);
    Ok(())
}

/// What a child finds, with what it inherited and with its own.
fn childhood(client: &Client, held: &LockGuard) -> Outcome {
    assert!(!held.is_held());
    assert!(write(held).is_err_and(|error| error.kind() == ErrorKind::Lost));
    pair(client, "contended")?;
    assert!(client.lock("held")?.try_acquire().wait()?.is_none());
    Ok(())
}

#[test]
fn a_child_uses_connections_and_a_session_of_its_own() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let client = Client::of(&cluster)?;
    let held = client.lock("held")?.acquire().wait()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome {
        // Something is always under way in the parent, and on its connection.
        let busy = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                pair(&client, "contended")?;
            }
            Outcome::Ok(())
        });
        let ended = [(); 3].map(|()| {
            let child = Forked::start(|| childhood(&client, &held).unwrap());
            child.and_then(Forked::join)
        });
        stop.store(true, Ordering::Relaxed);
        let parent = busy.join();
        ended.into_iter().collect::<Outcome>()?;
        parent.map_err(|_| lock_testkit::Failure::new("the parent panicked"))?
    })?;
    assert_eq!(cluster.leases()?.len(), 4);
    // The control: what the children were refused, the parent may do.
    assert!(held.is_held());
    assert!(matches!(write(&held)?, EtcdOutcome::Committed { .. }));
    assert_eq!(held.release_blocking()?, Released::Released);
    Ok(())
}
