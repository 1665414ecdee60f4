//! In-process locks against their peers, and what their extras cost.

mod deadlock;

use std::process::ExitCode;

use lock_benches::Session;

fn main() -> anyhow::Result<ExitCode> {
    let mut session = Session::start("inprocess")?;
    deadlock::measure(&mut session)?;
    Ok(session.finish())
}
