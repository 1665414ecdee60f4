//! `cargo xtask <command>`: every check of this project, started the same way by people and by CI.

#![expect(
    clippy::print_stdout,
    reason = "printing what was checked is this program's purpose"
)]

mod bench;
mod ci;
mod command;
mod help;
mod metadata;
mod models;
mod services;
mod test_all_backends;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

/// One entry of the command line: its name, its line in the help, and what it does.
struct Command {
    name: &'static str,
    about: &'static str,
    run: Run,
}

enum Run {
    Alone(fn() -> Result<ExitCode>),
    /// With whatever follows on the command line.
    With(fn(&[String]) -> Result<ExitCode>),
}

const COMMANDS: &[Command] = &[
    Command {
        name: "ci",
        about: "all checks and all tests, as CI runs them",
        run: Run::Alone(ci::main),
    },
    Command {
        name: "test-all-backends",
        about: "tests, doc tests, the conformance suite of every backend, every example",
        run: Run::Alone(test_all_backends::main),
    },
    Command {
        name: "models",
        about: "the in-process table under model checkers and a race detector",
        run: Run::Alone(models::main),
    },
    Command {
        name: "bench",
        about: "measure one backend against floors and peers",
        run: Run::With(bench::main),
    },
    Command {
        name: "services",
        about: "finds or installs the servers that tests need; test-all-backends does it too",
        run: Run::Alone(services::main),
    },
    Command {
        name: "tidy",
        about: "house rules that no compiler checks",
        run: Run::Alone(tidy::main),
    },
    Command {
        name: "help",
        about: "this list",
        run: Run::Alone(help::main),
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
    let Some((name, rest)) = arguments.split_first() else {
        help::main()?;
        anyhow::bail!("expected a command");
    };
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => match command.run {
            Run::With(run) => run(rest),
            Run::Alone(run) if rest.is_empty() => run(),
            Run::Alone(_) => anyhow::bail!("`{name}` takes no arguments, got {}", rest.join(" ")),
        },
        None => anyhow::bail!("no command `{name}`; `cargo xtask help` lists them"),
    }
}
