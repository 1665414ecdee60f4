//! Reading a versioned value while nobody and while somebody else reads it.

use std::hint::black_box;
use std::sync::{Arc, Barrier};

use anyhow::Result;
use lock_benches::{Bar, Round, Session};
use lock_core::{Lock, LockKey};
use lock_threading::{ThreadingBackend, Versioned};

use crate::keys::thread_time;

const READS: u32 = 1_000_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let lock = Lock::new(Arc::new(ThreadingBackend::new()), LockKey::new("value")?);
    let ours = Arc::new(Versioned::new(lock, 42_u64));
    let peer = Arc::new(arc_swap::ArcSwap::from_pointee(42_u64));
    let rounds = session.section("snapshot", |round| {
        for threads in [1, 2] {
            let (ours, peer) = (Arc::clone(&ours), Arc::clone(&peer));
            let ns = reads(threads, move || *black_box(ours.snapshot()));
            round.record(format!("ours, {threads}"), ns);
            let ns = reads(threads, move || **black_box(peer.load()));
            round.record(format!("arc-swap, {threads}"), ns);
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let to_peer = |round: &Round| round.get("ours, 1") / round.get("arc-swap, 1");
    session.judge(&rounds, &Bar::at_most("snapshot-to-arc-swap", 1.2), to_peer);
    let flat = |round: &Round| round.get("ours, 2") / round.get("ours, 1");
    session.judge(
        &rounds,
        &Bar::at_most("snapshot-flat-with-threads", 1.2),
        flat,
    );
    Ok(())
}

/// Processor time of one read, in nanoseconds, on each of some threads.
fn reads<F: Fn() -> u64 + Clone + Send + 'static>(threads: usize, read: F) -> f64 {
    let start = Arc::new(Barrier::new(threads));
    let spawn = |_| {
        let (read, start) = (read.clone(), Arc::clone(&start));
        std::thread::spawn(move || {
            start.wait();
            let began = thread_time();
            for _ in 0..READS {
                black_box(read());
            }
            (thread_time() - began).as_secs_f64()
        })
    };
    let running: Vec<_> = (0..threads).map(spawn).collect();
    let seconds: f64 = running
        .into_iter()
        .map(|thread| thread.join().unwrap_or(f64::NAN))
        .sum();
    seconds * 1e9 / f64::from(READS) / threads as f64
}
