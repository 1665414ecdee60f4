//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::exit;

/// Run a command under a lock, see who holds and who waits, try out a configuration.
#[derive(Debug, Parser)]
#[command(
    name = "lockctl",
    version,
    after_help = "`lockctl run --help` tells the exit codes."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take the lock KEY, run CMD, give the lock back.
    ///
    /// Exits as CMD does, with 128+n when signal n ended it. CMD finds LOCK_KEY and LOCK_MODE
    /// in its environment; LOCK_FENCING_TOKEN and LOCK_FENCING_EPOCH when it holds the lock alone;
    /// LOCK_SLOT when it holds a permit.
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// List the keys that are held or waited for.
    List(ListArgs),
    /// Show who holds KEY and who waits for it, with everything that is known about them.
    Show(ShowArgs),
    /// Tell which backend the configuration yields and why, and try it out.
    Check(CheckArgs),
    /// Write the completion script of a shell to stdout.
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  that of CMD; 128+n when signal n ended CMD, or ended the wait for the lock
   64  wrong usage, or KEY is no key         65  KEY is in use in another mode
   69  the backend is unavailable            70  internal error
   75  contended: not free at once, or not within the wait limit; --conflict-exit-code changes it
   76  lost: no longer sure to be held while CMD ran, so CMD was stopped
   77  permission denied                     78  wrong configuration
  126  CMD cannot be executed               127  CMD was not found

Example:
  lockctl run nightly-import --wait 10m -- ./import.sh";

/// Where the locks are.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Where the locks are")]
pub(crate) struct Place {
    /// The configuration: TOML, YAML or JSON [default: files in a directory of this user]
    #[arg(long, value_name = "FILE", env = "LOCKCTL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The profile of the configuration to use
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) profile: Option<String>,
    /// The namespace that keeps applications apart [default: that of the configuration, or none]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// What is protected, by name
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    #[command(flatten)]
    pub(crate) place: Place,
    /// The command to run, and its arguments
    #[arg(
        last = true,
        required = true,
        value_name = "CMD",
        help_heading = "Arguments"
    )]
    pub(crate) command: Vec<OsString>,
}

/// How long to wait, and what if that was in vain.
#[derive(Debug, ClapArgs)]
pub(crate) struct WaitArgs {
    /// How long to wait for the lock, as `10s` or `1h 30m` [default: that of the configuration,
    /// or for ever]
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Do not wait: fail at once when someone else holds the lock
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Among those who wait, higher goes first: -128 to 127 [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) priority: Option<i8>,
    /// The exit code when contended: not free at once, or not within the wait limit
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::CONTENDED)]
    pub(crate) conflict_exit_code: u8,
}

/// How the lock is held.
#[derive(Debug, ClapArgs)]
pub(crate) struct HoldArgs {
    /// Share the lock with other --shared holders only
    #[arg(short, long)]
    pub(crate) shared: bool,
    /// Take one of N permits: at most N commands run at once
    #[arg(long, value_name = "N", conflicts_with = "shared")]
    pub(crate) permits: Option<u32>,
    /// The life of the lease between renewals, for backends that have leases
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// A line for people who ask who holds the lock [default: the command's name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

/// What ends the command before its time.
#[derive(Debug, ClapArgs)]
pub(crate) struct StopArgs {
    /// Give the lock up and stop CMD when it is held longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max_hold: Option<Duration>,
    /// After the lock is lost CMD gets SIGTERM, and SIGKILL this much later
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(crate) kill_after: Duration,
    /// Run CMD in a process group of its own and send signals to all of it; CMD can then not read
    /// from the terminal
    #[arg(long)]
    pub(crate) group: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// The key to show
    pub(crate) key: String,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration as `10s`, `500ms` or `1h 30m`"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_command_keeps_its_own_options() {
        let args =
            Args::try_parse_from(["lockctl", "run", "k", "-w", "1h 30m", "--", "ls", "--wait"])
                .unwrap();
        let Command::Run(run) = args.command else {
            panic!("parsed as {:?}", args.command);
        };
        assert_eq!(run.wait.wait, Some(Duration::from_secs(5400)));
        assert_eq!(run.command, ["ls", "--wait"]);
    }

    #[test]
    fn a_duration_without_a_unit_is_told_how_to_write_it() {
        let error = Args::try_parse_from(["lockctl", "run", "k", "--wait", "10", "--", "ls"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("write a duration as `10s`"), "{error}");
    }
}
