//! Children made by `fork` while their parent is at work with the servers.

use std::sync::atomic::{AtomicBool, Ordering};

use lock_core::{ErrorKind, LockGuard, Released, block_on};
use lock_etcd::{EtcdGuard as _, EtcdOutcome};
use lock_testkit::Outcome;
use lock_testkit::services::etcd::EtcdCluster;

use crate::support::Client;

/// A child that hangs is ended after this long.
const LIFE_SECONDS: u32 = 60;

fn write(guard: &LockGuard) -> lock_core::Result<EtcdOutcome> {
    block_on(guard.fenced_transaction()?.put("written", "").commit())
}

fn pair(client: &Client, name: &str) -> Outcome {
    let guard = client.lock(name)?.acquire().wait()?;
    assert_eq!(guard.release_blocking()?, Released::Released);
    Ok(())
}

/// What a child finds, with what it inherited and with its own.
fn childhood(client: &Client, held: &LockGuard) -> Outcome<bool> {
    let refused = write(held).is_err_and(|error| error.kind() == ErrorKind::Lost);
    let sees_nothing = !held.is_held() && refused;
    pair(client, "contended")?;
    let parents = client.lock("held")?.try_acquire().wait()?.is_none();
    Ok(sees_nothing && parents)
}

/// Runs `child` in a process of its own. Returns whether it said yes.
#[expect(unsafe_code, reason = "a real fork is what is tested")]
fn said_yes(child: impl FnOnce() -> Outcome<bool>) -> bool {
    // SAFETY: the child uses this library, which is made for it, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: a system call.
        unsafe { libc::alarm(LIFE_SECONDS) };
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        let yes = matches!(told, Ok(Ok(true)));
        // SAFETY: ends the process, and runs nothing of the parent's.
        unsafe { libc::_exit(i32::from(!yes)) }
    }
    let mut status = 0;
    // SAFETY: a system call that writes to a variable of ours.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(ended, pid, "no fork");
    status == 0
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
        let said = [(); 3].map(|()| said_yes(|| childhood(&client, &held)));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(said, [true; 3]);
        busy.join()
            .map_err(|_| lock_testkit::Failure::new("the parent panicked"))?
    })?;
    assert_eq!(cluster.leases()?.len(), 4);
    // The control: what the children were refused, the parent may do.
    assert!(held.is_held());
    assert!(matches!(write(&held)?, EtcdOutcome::Committed { .. }));
    assert_eq!(held.release_blocking()?, Released::Released);
    Ok(())
}
