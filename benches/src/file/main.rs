//! File locks, against the kernel's own and against other libraries.
#![expect(
    clippy::print_stdout,
    reason = "printing what was measured is a bench's purpose"
)]

mod contention;
mod handover;
mod party;
mod peers;
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
        Some((name, _)) => bail!("no role `{name}`"),
        None => {}
    }
    let mut session = Session::start("file")?;
    uncontended::measure(&mut session)?;
    handover::measure(&mut session)?;
    contention::measure(&mut session)?;
    peers::measure(&mut session)?;
    Ok(session.finish())
}
