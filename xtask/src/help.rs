//! `cargo xtask help`.

use std::process::ExitCode;

use anyhow::Result;

use crate::COMMANDS;

pub(crate) fn main() -> Result<ExitCode> {
    println!("usage: cargo xtask <command>\n");
    for command in COMMANDS {
        println!("  {:<18} {}", command.name, command.about);
    }
    Ok(ExitCode::SUCCESS)
}
