//! A lock in ten lines.
//!
//! ```text
//! cargo run -p lock-examples --example quickstart
//! ```
//!
//! Without a configuration locks reach as far as this process. `Config::from_file("locks.toml")` makes
//! the same code exclude the processes of a host, or all hosts.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use lock_manager::{AcquireOptions, Config, LockManager, Result};

fn import(manager: &LockManager) -> Result<()> {
    let lock = manager.lock("orders/import")?;
    let options = AcquireOptions::new().wait_limit(Duration::from_secs(10));
    let guard = lock.acquire_with(&options).wait()?; // `.await` in a task: the same lock, the same queue
    println!("alone at work, fencing token {:?}", guard.fencing_token());
    // Somebody else who tries now is told at once. That is an answer, not an error.
    assert!(
        manager
            .lock("orders/import")?
            .try_acquire()
            .wait()?
            .is_none()
    );
    Ok(()) // dropping the guard gives the lock back, also in a panic
}

fn main() -> Result<()> {
    let manager = LockManager::new(Config::default())?; // or Config::from_file("locks.toml")?
    import(&manager)?;
    assert!(
        manager
            .lock("orders/import")?
            .try_acquire()
            .wait()?
            .is_some()
    );
    println!("given back, and free for the next one");
    Ok(())
}
