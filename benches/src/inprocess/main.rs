//! Locks within one process, beside everything else that locks by key in Rust.

#![expect(
    clippy::print_stdout,
    reason = "printing what was measured is a bench's purpose"
)]

mod allocations;
mod contended;
mod deadlock;
mod facade;
mod growth;
mod held;
mod hygiene;
mod keys;
mod locks;
mod memory;
mod plot;
mod snapshot;
mod threads;
mod uncontended;

use std::process::ExitCode;

use anyhow::Result;
use lock_benches::Session;

fn main() -> Result<ExitCode> {
    if let Some((name, arguments)) = lock_benches::role() {
        return memory::play(&name, &arguments);
    }
    let mut session = Session::start("inprocess")?;
    uncontended::measure(&mut session)?;
    facade::measure(&mut session)?;
    held::measure(&mut session)?;
    threads::measure(&mut session)?;
    contended::measure(&mut session)?;
    memory::measure(&mut session)?;
    hygiene::measure(&mut session)?;
    growth::measure(&mut session)?;
    snapshot::measure(&mut session)?;
    deadlock::measure(&mut session)?;
    Ok(session.finish())
}
