//! Real processes that hold, wait, die, fork and spawn.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::path::Path;
use std::time::Duration;

use lock_core::{AcquireOptions, LockBackend, LockKey, LossReason, Released, block_on};
use lock_file::{FileBackend, FileConfig};
use support::{PATIENCE, Peer, directory, eventually, holders, lock, open, waiters};

#[test]
#[ignore = "the program that the other tests start"]
fn peer_program() {
    support::run_peer();
}

#[test]
fn processes_exclude_each_other_and_hand_over_on_release() {
    let dir = directory();
    let (mut a, mut b) = (Peer::start(dir.path()), Peer::start(dir.path()));
    assert_eq!(a.ask("acquire exclusive x"), "held");
    assert_eq!(b.ask("try exclusive x"), "contended");
    assert_eq!(b.ask("try shared x"), "contended");
    assert_eq!(b.ask("try exclusive y"), "held");
    b.tell("acquire exclusive x");
    let backend = open(dir.path());
    eventually("b is next", || waiters(&backend, "x").len() == 1);
    assert_eq!(waiters(&backend, "x")[0].process.pid, b.pid());
    assert_eq!(holders(&backend, "x")[0].process.pid, a.pid());
    assert_eq!(a.ask("release"), "Ok(Released)");
    assert_eq!(b.hear(), "held");
    assert_eq!(a.ask("try exclusive x"), "contended");
}

/// A backend whose own looks come too late for any test: it has to be woken.
fn slow_poller(directory: &Path) -> FileBackend {
    let mut config = FileConfig::in_directory(directory);
    config.backup_poll = Duration::from_secs(3600);
    FileBackend::open(config).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_release_wakes_waiters_of_other_processes_without_their_looking() {
    let dir = directory();
    let backends = [slow_poller(dir.path()), slow_poller(dir.path())];
    let mut peer = Peer::start(dir.path());
    for mode in ["exclusive", "shared", "1"] {
        assert_eq!(peer.ask(&format!("acquire {mode} {mode}")), "held");
        // Two at once: the second one waits for the turn first.
        let threads = backends.clone().map(|backend| {
            std::thread::spawn(move || {
                let exclusive = lock(&backend, mode).try_acquire_for(PATIENCE);
                exclusive.wait().unwrap().map(drop)
            })
        });
        eventually("both wait", || {
            backends
                .iter()
                .all(|backend| !waiters(backend, mode).is_empty())
        });
        // sleep: the looks that this test's own inspection caused are over by then
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(peer.ask("release"), "Ok(Released)");
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Some(()), "not woken");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_death_wakes_the_next_one_without_its_looking_and_its_record_is_shown_no_more() {
    let dir = directory();
    let backend = slow_poller(dir.path());
    let options = AcquireOptions::new().wait_limit(PATIENCE);
    for is_task in [true, false].repeat(5) {
        let mut holder = Peer::start(dir.path());
        assert_eq!(holder.ask("acquire exclusive x"), "held");
        assert_eq!(holders(&backend, "x")[0].process.pid, holder.pid());
        let mut acquire = lock(&backend, "x").acquire_with(&options);
        if is_task {
            assert!(acquire.try_take().is_none());
        }
        let waiting = std::thread::spawn(move || acquire.wait());
        eventually("it is next", || support::turn_is_taken(dir.path(), "x"));
        holder.kill();
        let guard = waiting.join().unwrap().expect("woken");
        guard.release_blocking().unwrap();
        assert!(
            holders(&backend, "x").is_empty(),
            "a stale record is no holder"
        );
    }
}

#[test]
fn a_waiting_exclusive_is_not_overtaken_and_its_death_lets_readers_in() {
    let dir = directory();
    let mut reader = Peer::start(dir.path());
    let mut other = Peer::start(dir.path());
    let mut writer = Peer::start(dir.path());
    assert_eq!(reader.ask("acquire shared x"), "held");
    assert_eq!(other.ask("try shared x"), "held");
    assert_eq!(other.ask("release"), "Ok(Released)");
    writer.tell("acquire exclusive x");
    let backend = open(dir.path());
    eventually("the writer is next", || waiters(&backend, "x").len() == 1);
    assert_eq!(other.ask("try shared x"), "contended");
    assert_eq!(
        reader.ask("try shared x"),
        "contended",
        "nor one of the holder's process"
    );
    other.tell("acquire shared x");
    writer.kill();
    assert_eq!(other.hear(), "held");
    assert_eq!(holders(&backend, "x").len(), 2);
    assert_eq!(reader.ask("release"), "Ok(Released)");
    assert_eq!(other.ask("release"), "Ok(Released)");
    assert_eq!(reader.ask("try exclusive x"), "held");
}

#[test]
fn permits_are_counted_over_processes_and_a_crash_frees_one() {
    let dir = directory();
    let mut a = Peer::start(dir.path());
    let mut b = Peer::start(dir.path());
    assert_eq!(a.ask("try 3 x"), "held");
    assert_eq!(a.ask("try 3 x"), "held");
    assert_eq!(b.ask("try 3 x"), "held");
    assert_eq!(b.ask("try 3 x"), "contended");
    assert_eq!(b.ask("try 4 x"), "ModeConflict");
    assert_eq!(b.ask("try exclusive x"), "contended");
    let mut c = Peer::start(dir.path());
    assert_eq!(c.ask("try 2 x"), "ModeConflict");
    assert_eq!(c.ask("try shared x"), "ModeConflict");
    let backend = open(dir.path());
    assert_eq!(holders(&backend, "x").len(), 3);
    c.tell("acquire 3 x");
    b.kill();
    assert_eq!(c.hear(), "held");
    assert_eq!(a.ask("try 3 x"), "contended");
    a.kill();
    c.kill();
    let mut d = Peer::start(dir.path());
    assert_eq!(d.ask("try shared x"), "held", "the dead bind nobody");
}

#[test]
fn four_processes_count_without_a_gap_and_with_rising_numbers() {
    let dir = directory();
    let counter = dir.path().join("counter.txt");
    std::fs::write(&counter, "0 0").unwrap();
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::start(dir.path())).collect();
    for peer in &mut peers {
        peer.tell(&format!("count {} x 250", counter.display()));
    }
    for peer in &mut peers {
        assert_eq!(peer.hear(), "counted");
    }
    let text = std::fs::read_to_string(&counter).unwrap();
    assert_eq!(text.split_once(' ').unwrap().0, "1000");
}

#[test]
fn a_downgrade_lets_in_readers_and_no_writer() {
    let dir = directory();
    let (mut a, mut b) = (Peer::start(dir.path()), Peer::start(dir.path()));
    assert_eq!(a.ask("acquire exclusive x"), "held");
    b.tell("acquire shared x");
    let backend = open(dir.path());
    eventually("b is next", || waiters(&backend, "x").len() == 1);
    assert_eq!(a.ask("downgrade"), "Ok(())");
    assert_eq!(b.hear(), "held");
    let mut c = Peer::start(dir.path());
    assert_eq!(c.ask("try exclusive x"), "contended");
    assert_eq!(c.ask("try shared x"), "held");
    assert_eq!(a.ask("release"), "Ok(Released)");
}

#[test]
fn a_deleted_file_is_a_lost_lock() {
    let dir = directory();
    let mut a = Peer::start(dir.path());
    assert_eq!(a.ask("acquire exclusive x"), "held");
    let backend = open(dir.path());
    let number = |backend| holders(backend, "x")[0].fencing.unwrap();
    let before = number(&backend);
    std::fs::remove_file(dir.path().join("x.lock")).unwrap();
    assert_eq!(a.ask("lost"), format!("Some({:?})", LossReason::Revoked));
    assert_eq!(a.ask("release"), "Ok(AlreadyLost)");
    assert_eq!(a.ask("try exclusive x"), "held");
    assert!(number(&backend) > before, "numbers outlive the file");
    // Also when it is noticed only by the release itself.
    std::fs::remove_file(dir.path().join("x.lock")).unwrap();
    assert_eq!(a.ask("release"), "Ok(AlreadyLost)");
    // One that was moved away is noticed by the next look.
    assert_eq!(a.ask("try exclusive x"), "held");
    std::fs::rename(dir.path().join("x.lock"), dir.path().join("y")).unwrap();
    assert_eq!(a.ask("lost"), "Some(Revoked)");
    assert_eq!(a.ask("release"), "Ok(AlreadyLost)");
    assert_eq!(a.ask("try exclusive x"), "held");
}

#[test]
fn a_broken_lock_passes_on_and_its_holder_hears_of_it() {
    let dir = directory();
    let backend = open(dir.path());
    let mut a = Peer::start(dir.path());
    assert_eq!(a.ask("acquire exclusive x"), "held");
    let number = holders(&backend, "x")[0].fencing.unwrap();
    let mut b = Peer::start(dir.path());
    b.tell("acquire exclusive x");
    eventually("b is next", || waiters(&backend, "x").len() == 1);
    let key = LockKey::new("x").unwrap();
    assert_eq!(block_on(backend.break_lock(&key, None)).unwrap(), 1);
    assert_eq!(b.hear(), "held");
    assert!(holders(&backend, "x")[0].fencing.unwrap() > number);
    assert_eq!(a.ask("lost"), "Some(Revoked)");
    assert_eq!(a.ask("release"), "Ok(AlreadyLost)");
    assert_eq!(a.ask("try exclusive x"), "contended");
    // One of several permits.
    assert_eq!(a.ask("try 2 p"), "held");
    assert_eq!(b.ask("try 2 p"), "held");
    let key = LockKey::new("p").unwrap();
    let target = holders(&backend, "p");
    let target = target.iter().find(|h| h.process.pid == a.pid()).unwrap();
    let broken = block_on(backend.break_lock(&key, Some(target.attempt)));
    assert_eq!(broken.unwrap(), 1);
    assert_eq!(a.ask("lost"), "Some(Revoked)");
    assert_eq!(a.ask("try 2 p"), "held");
    assert_eq!(b.ask("release"), "Ok(Released)");
}

#[test]
fn a_forked_child_neither_keeps_nor_releases_its_parents_lock() {
    let dir = directory();
    let backend = open(dir.path());
    let mut parent = Peer::start(dir.path());
    assert_eq!(parent.ask("acquire exclusive x"), "held");
    let child: u32 = parent.ask("fork x").parse().unwrap();
    let kill = KillOnDrop(child);
    eventually("the child waits like any process", || {
        waiters(&backend, "x").len() == 1
    });
    assert_eq!(holders(&backend, "x")[0].process.pid, parent.pid());
    // The parent dies without a release, while the child lives.
    parent.kill();
    eventually("the child holds", || {
        holders(&backend, "x")
            .first()
            .is_some_and(|holder| holder.process.pid == child)
    });
    drop(kill);
    assert!(lock(&backend, "x").acquire().wait().is_ok());
}

#[test]
fn a_spawned_program_inherits_no_lock() {
    let dir = directory();
    let mut parent = Peer::start(dir.path());
    assert_eq!(parent.ask("acquire exclusive x"), "held");
    let sleeper: u32 = parent.ask("sleeper").parse().unwrap();
    let _kill = KillOnDrop(sleeper);
    let descriptors = std::fs::read_dir(format!("/proc/{sleeper}/fd")).unwrap();
    for descriptor in descriptors {
        // The program opens and closes some while it starts.
        let Ok(target) = std::fs::read_link(descriptor.unwrap().path()) else {
            continue;
        };
        assert!(!target.starts_with(dir.path()), "{}", target.display());
    }
    parent.kill();
    let backend = open(dir.path());
    let guard = lock(&backend, "x").acquire().wait().unwrap();
    assert!(Path::new(&format!("/proc/{sleeper}")).exists());
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
}

struct KillOnDrop(u32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        support::signal(self.0, rustix::process::Signal::KILL);
    }
}
