//! Locks without any async runtime: threads that park, and an event loop of your own.
//!
//! ```text
//! cargo run -p lock-examples --example blocking_threads
//! ```
//!
//! A pending acquire is one thing whoever waits for it. `wait` parks a thread on it; `readiness`
//! turns it into a descriptor for `poll`, `select` or any loop built on them. Both stand in the same
//! queue as tasks that `.await`.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, ErrorKind, Lock, LockGuard, LockKey, Result};
use lock_threading::ThreadingBackend;
use rustix::event::{PollFd, PollFlags, poll};

const THREADS: u64 = 4;
const ROUNDS: u64 = 250;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let lock = Lock::new(Arc::new(ThreadingBackend::new()), LockKey::new("ledger")?);
    threads_take_turns(&lock)?;
    a_wait_limit_is_a_bound(&lock)?;
    an_event_loop_is_never_blocked(&lock)
}

/// Read, then write: without the lock, threads would overwrite each other's increments.
fn threads_take_turns(lock: &Lock) -> Result<()> {
    let entries = AtomicU64::new(0);
    let count = || -> Result<()> {
        for _ in 0..ROUNDS {
            let _guard = lock.acquire().wait()?;
            let seen = entries.load(Ordering::Relaxed);
            thread::yield_now();
            entries.store(seen + 1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    assert_eq!(entries.into_inner(), THREADS * ROUNDS);
    println!("{THREADS} threads × {ROUNDS} rounds, no entry lost");
    Ok(())
}

/// Contention is an error only for who asked to wait, and `None` for who asked to try.
fn a_wait_limit_is_a_bound(lock: &Lock) -> Result<()> {
    let _held = lock.acquire().wait()?;
    assert!(lock.try_acquire().wait()?.is_none());

    let limit = Duration::from_millis(50);
    let started = Instant::now();
    let refused = lock
        .acquire_with(&AcquireOptions::new().wait_limit(limit))
        .wait();
    let error = refused.expect_err("the lock is held");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() >= limit);
    println!("after {limit:?}: {error}");
    Ok(())
}

/// One thread serves requests and waits for the lock at the same time. The lock becomes free only
/// after the loop has served three requests, so a loop that blocked on it would never end.
fn an_event_loop_is_never_blocked(lock: &Lock) -> std::result::Result<(), Box<dyn Error>> {
    let held = lock.acquire().wait()?;
    let (served, requests_served) = mpsc::channel();
    let (mut requests, mut client) = std::io::pipe()?;
    let other_side = thread::spawn(move || -> std::io::Result<()> {
        for _ in 0..3 {
            client.write_all(b"?")?;
            // An error means that the loop is gone; the guard is then dropped all the same.
            let _ = requests_served.recv();
        }
        drop(held);
        // Keep the pipe open until the loop has ended: a closed one is readable for ever.
        let _ = requests_served.recv();
        Ok(())
    });

    let guard = serve_until_held(lock, &mut requests, &served)?;
    assert!(guard.is_held());
    drop(served);
    other_side.join().map_err(|_| "the client panicked")??;
    Ok(())
}

fn serve_until_held(
    lock: &Lock,
    requests: &mut std::io::PipeReader,
    served: &mpsc::Sender<()>,
) -> std::result::Result<LockGuard, Box<dyn Error>> {
    let mut acquire = lock.acquire();
    let mut readiness = acquire.readiness()?;
    let mut answered = 0;
    loop {
        let (news, asked) = {
            let mut watched = [
                PollFd::from_borrowed_fd(readiness.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(requests.as_fd(), PollFlags::IN),
            ];
            poll(&mut watched, None)?;
            let ready = |i: usize| watched[i].revents().contains(PollFlags::IN);
            (ready(0), ready(1))
        };
        if asked {
            requests.read_exact(&mut [0])?;
            answered += 1;
            served.send(())?;
        }
        if news {
            // Readable means "look again", not "yours": empty the descriptor, then ask.
            let _ = readiness.read(&mut [0; 8])?;
            if let Some(outcome) = acquire.try_take() {
                println!("the loop answered {answered} requests while it waited for the lock");
                assert_eq!(answered, 3);
                return Ok(outcome?);
            }
        }
    }
}
