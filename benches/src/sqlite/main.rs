//! SQLite locks, against the bare statements that any lock in a database needs.
#![expect(
    clippy::print_stdout,
    reason = "printing what was measured is a bench's purpose"
)]

mod bare;
mod growth;
mod handover;
mod party;
mod peers;
mod processes;
mod tasks;
mod uncontended;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lock_benches::Session;

fn main() -> Result<ExitCode> {
    match lock_benches::role() {
        Some((name, arguments)) if name == party::ROLE => {
            party::play(&arguments)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some((name, arguments)) if name == party::ECHO => {
            party::echo(&arguments)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some((name, arguments)) if name == peers::ROLE => {
            peers::play(&arguments)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some((name, _)) => bail!("no role `{name}`"),
        None => {}
    }
    let mut session = Session::start("sqlite")?;
    uncontended::measure(&mut session)?;
    tasks::measure(&mut session)?;
    processes::measure(&mut session)?;
    handover::measure(&mut session)?;
    growth::measure(&mut session)?;
    peers::measure(&mut session)?;
    Ok(session.finish())
}
