//! `lockctl run`: take the lock, run the command, give the lock back.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use lock_core::{
    AcquireOptions, Error, ErrorKind, Lock, LockGuard, Mode, Released, Scope, block_on,
};

use crate::args::{HoldArgs, RunArgs};
use crate::child::{Ended, Supervised};
use crate::events::{Event, Events, Signal};
use crate::exit;
use crate::failure::Failure;
use crate::open::{Opened, open};
use crate::view::{PartyView, mode_name};

/// Takes the lock and runs the command under it.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    // First of all, so that no signal finds the lock queued and nobody to take it back.
    let events = Events::listen()?;
    let opened = open(&args.place)?;
    let lock = opened.lock(&args.key)?;
    refuse_one_process(&lock)?;
    let options = options(lock.options().clone(), args)?;
    let code = match acquire(&lock, &options, &events) {
        Ok(Acquired::Held(guard)) => {
            run_under(&guard, args, &events).and_then(|ended| give_back(guard, ended))
        }
        Ok(Acquired::Interrupted(signal)) => Ok(exit::of_signal(signal.number)),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            Err(contended(&opened, &lock, args.wait.conflict_exit_code))
        }
        Err(error) => Err(error.into()),
    };
    // What is still on its way to a server would die with this process.
    opened.close();
    code.map(ExitCode::from)
}

/// A lock in this process's memory would exclude nobody: its only user is this process.
fn refuse_one_process(lock: &Lock) -> Result<(), Failure> {
    let capabilities = lock.backend().capabilities();
    if capabilities.scope > Scope::Process {
        return Ok(());
    }
    let name = capabilities.name;
    let message = format!(
        "the configuration yields the `{name}` backend for `{}`, which reaches one process: each \
         `lockctl run` is a process of its own, so its lock would exclude nobody",
        lock.key()
    );
    Err(Failure::new(exit::CONFIG, message).hint(
        "write `backend = \"file\"` for all processes of this host; without a configuration lockctl \
         uses files",
    ))
}

/// The options of the configuration, with those of the command line over them.
fn options(configured: AcquireOptions, args: &RunArgs) -> Result<AcquireOptions, Failure> {
    let mut options = configured
        .mode(mode(&args.hold)?)
        .label(label(&args.hold, &args.command));
    if let Some(priority) = args.wait.priority {
        options = options.priority(priority);
    }
    if args.wait.no_wait {
        options = options.wait_limit(Duration::ZERO);
    } else if let Some(limit) = args.wait.wait {
        options = options.wait_limit(limit);
    }
    if let Some(ttl) = args.hold.ttl {
        options = options.ttl(ttl);
    }
    if let Some(limit) = args.stop.max_hold {
        options = options.max_hold(limit);
    }
    Ok(options)
}

fn mode(hold: &HoldArgs) -> Result<Mode, Failure> {
    match hold.permits {
        Some(of) => Mode::permit(of)
            .map_err(|error| Failure::new(exit::USAGE, format!("--permits: {}", error.message()))),
        None if hold.shared => Ok(Mode::Shared),
        None => Ok(Mode::Exclusive),
    }
}

/// The label asked for, else the name of the program: its arguments may be nobody's business.
fn label(hold: &HoldArgs, command: &[OsString]) -> String {
    let program = || {
        let path = command.first().map(Path::new);
        path.and_then(Path::file_name)
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    hold.label.clone().unwrap_or_else(program)
}

enum Acquired {
    Held(LockGuard),
    Interrupted(Signal),
}

/// Waits for the lock, or for a signal that ends the wait.
fn acquire(lock: &Lock, options: &AcquireOptions, events: &Events) -> Result<Acquired, Error> {
    let mut acquire = lock.acquire_with(options);
    let queue = events.sender();
    acquire.on_ready(move || {
        // Nobody listens any more when a signal ended the wait.
        let _ = queue.send(Event::Ready);
    });
    loop {
        match events.next(None) {
            Some(Event::Signal(signal)) => return Ok(Acquired::Interrupted(signal)),
            Some(Event::Ready | Event::Ended | Event::Lost(_)) | None => {
                if let Some(outcome) = acquire.try_take() {
                    return outcome.map(Acquired::Held);
                }
            }
        }
    }
}

fn run_under(guard: &LockGuard, args: &RunArgs, events: &Events) -> Result<Ended, Failure> {
    let mut words = args.command.iter();
    // clap insists on at least one word.
    let program = words.next().map(OsString::as_os_str).unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words);
    tell(&mut command, guard);
    Supervised::start(command, args.stop.group)?.watch(guard, events, args.stop.kill_after)
}

/// Tells the command what it holds, and hides what a `lockctl run` around this one told.
fn tell(command: &mut Command, guard: &LockGuard) {
    let token = guard.fencing_token();
    let told = [
        ("LOCK_KEY", Some(guard.key().name().to_owned())),
        ("LOCK_MODE", Some(mode_name(guard.mode()).to_owned())),
        (
            "LOCK_FENCING_TOKEN",
            token.map(|token| token.number().get().to_string()),
        ),
        (
            "LOCK_FENCING_EPOCH",
            token.map(|token| token.epoch().to_string()),
        ),
        ("LOCK_SLOT", guard.slot().map(|slot| slot.0.to_string())),
    ];
    for (name, value) in told {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Releases, and turns the command's end into an exit code.
fn give_back(guard: LockGuard, ended: Ended) -> Result<u8, Failure> {
    let key = guard.key().clone();
    let loss = ended.lost.or_else(|| guard.loss());
    let released = guard.release_blocking();
    let status = ended.status;
    let lost = |how: &str| {
        Err(Failure::new(
            exit::LOST,
            format!("the lock on `{key}` was lost: {how}; the command ended with {status}"),
        ))
    };
    match (loss, released) {
        (Some(reason), _) => lost(&reason.to_string()),
        (None, Ok(Released::AlreadyLost)) => lost("someone else may have held it meanwhile"),
        (None, Ok(Released::Released)) => Ok(exit::of_status(status)),
        (None, Err(error)) => {
            // The command did its work under the lock: its status is what the caller asked for.
            let _ = Failure::from(error).report();
            Ok(exit::of_status(status))
        }
    }
}

/// Says who has the lock, as far as that can be found out.
fn contended(opened: &Opened, lock: &Lock, code: u8) -> Failure {
    let key = lock.key();
    let failure = Failure::new(code, format!("someone else holds `{key}`"));
    let report = block_on(opened.manager().inspect(key.name()));
    let who: Vec<String> = report
        .iter()
        .flat_map(|report| &report.holders)
        .map(|holder| PartyView::new(holder).in_short())
        .collect();
    if who.is_empty() {
        return failure;
    }
    failure.hint(format!("held by {}", who.join(", ")))
}
