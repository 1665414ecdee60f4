//! `cargo xtask <command>`: every check of this project, started the same way by people and by CI.

#![expect(
    clippy::print_stdout,
    reason = "printing what was checked is this program's purpose"
)]

mod ci;
mod command;
mod help;
mod metadata;
mod test_all_backends;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

/// One entry of the command line: its name, its line in the help, and what it does.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "ci",
        about: "all checks and all tests, as CI runs them",
        run: ci::main,
    },
    Command {
        name: "test-all-backends",
        about: "tests, doc tests, the conformance suite of every backend, every example",
        run: test_all_backends::main,
    },
    Command {
        name: "tidy",
        about: "house rules that no compiler checks",
        run: tidy::main,
    },
    Command {
        name: "help",
        about: "this list",
        run: help::main,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    start(&arguments).unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(arguments: &[String]) -> Result<ExitCode> {
    let [name] = arguments else {
        help::main()?;
        anyhow::bail!("expected one command, got {}", arguments.len());
    };
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(),
        None => anyhow::bail!("no command `{name}`; `cargo xtask help` lists them"),
    }
}
