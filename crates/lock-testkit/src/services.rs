//! Real servers for tests and benches: started in temporary directories on free ports, broken on
//! purpose, and gone with the test, however it ends.
//!
//! Nothing is installed from here. A program is taken from its variable (`LOCKTEST_REDIS_SERVER`) or
//! from `PATH`; when it is missing, the error says what to install, and
//! `cargo xtask test-all-backends` brings it.

mod certificates;
pub mod etcd;
mod port;
mod process;
mod program;
pub mod proxy;
pub mod redis;

pub use certificates::Certificates;
pub use process::ServerProcess;
pub use program::ServerProgram;
pub use proxy::Proxy;

use std::time::{Duration, Instant};

use crate::{Failure, Outcome};

/// How long a server may take for what it does in a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Asks until there is an answer. `what` completes "no … within 20 s".
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let started = Instant::now();
    loop {
        let last = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => String::new(),
            Err(failure) => format!(": {failure}"),
        };
        if started.elapsed() > PATIENCE {
            return Err(Failure::new(format!("no {what} within {PATIENCE:?}{last}")));
        }
        // sleep: the interval of a poll, which orders nothing
        std::thread::sleep(POLL);
    }
}
