#![doc = include_str!("../README.md")]

mod args;
mod check;
mod child;
mod events;
mod exit;
mod failure;
mod list;
mod open;
mod output;
mod run;
mod show;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Args, Command};
use failure::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help goes to stdout and is a success; nobody is left to be told when it is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    dispatch(&args.command).unwrap_or_else(|failure| failure.report())
}

fn dispatch(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => return run::run(args),
        Command::List(args) => list::list(args)?,
        Command::Show(args) => show::show(args)?,
        Command::Check(args) => check::check(args)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "lockctl", &mut script);
            output::text(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
