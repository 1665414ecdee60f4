//! One program, three deployments: the configuration decides how far a lock reaches.
//!
//! ```text
//! cargo run -p lock-examples --example config_switch
//! ```
//!
//! A worker that runs alone is served by locks in its own memory. The same worker in a pool of forked
//! processes needs locks between processes. A backend that does not reach that far is refused when
//! the program starts, with what to write instead: not at night, by a job that ran twice.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::path::Path;

use lock_manager::{Config, ErrorKind, LockManager, Result};

/// The application. It names what it protects, and nothing else.
fn charge(manager: &LockManager, customer: u32) -> Result<String> {
    let guard = manager
        .lock(format!("customer/{customer}"))?
        .acquire()
        .wait()?;
    // … read the balance, write the balance …
    Ok(format!("charged under {}", guard.key()))
}

fn manager(settings: &Path, toml: &str) -> std::result::Result<LockManager, Box<dyn Error>> {
    std::fs::write(settings, toml)?;
    Ok(LockManager::new(Config::from_file(settings)?)?)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let settings = directory.path().join("locks.toml");
    let locks = directory.path().join("locks");
    let file = format!("[file]\ndirectory = {locks:?}\n");

    for (toml, expected) in [
        ("pool = \"solo\"\n".to_owned(), "threading"),
        (format!("pool = \"prefork\"\nhosts = 1\n{file}"), "file"),
    ] {
        let manager = manager(&settings, &toml)?;
        let chosen = manager.lock("probe")?.backend().capabilities();
        println!(
            "{toml}→ {} (reaches one {}): {}\n",
            chosen.name,
            chosen.scope,
            charge(&manager, 42)?
        );
        assert_eq!(chosen.name, expected);
    }

    let toml = "pool = \"prefork\"\nhosts = 1\nbackend = \"threading\"\n";
    let refused = manager(&settings, toml).expect_err("threading does not reach other processes");
    println!("{toml}→ refused: {refused}");
    let refused = refused.downcast::<lock_manager::Error>()?;
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
    assert!(
        refused.message().contains("`backend = \"file\"`"),
        "it says what to write"
    );
    Ok(())
}
