//! A process that takes part in a measurement, with one of several kinds of lock.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use distributed_lock_core::traits::{DistributedLock, LockHandle, LockProvider};
use distributed_lock_file::{FileLockHandle, FileLockProvider};
use lock_benches::Role;
use lock_core::{AcquireOptions, Lock, LockGuard, LockKey, Mode};
use lock_file::{FileBackend, FileConfig};

pub(crate) const ROLE: &str = "party";

/// A kind of lock that a party uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    OursShared,
    /// The system call on an open descriptor, blocking.
    Flock,
    /// The crate `distributed-lock-file`.
    DistributedLock,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursShared => "ours-shared",
            Self::Flock => "flock",
            Self::DistributedLock => "distributed-lock",
        }
    }

    fn open(self, directory: &Path) -> Result<Box<dyn Taker>> {
        Ok(match self {
            Self::Ours => Box::new(Ours::open(directory, Mode::Exclusive)?),
            Self::OursShared => Box::new(Ours::open(directory, Mode::Shared)?),
            Self::Flock => Box::new(Flock(open_file(&directory.join("raw"))?)),
            Self::DistributedLock => Box::new(Distributed::open(directory)?),
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        [
            Self::Ours,
            Self::OursShared,
            Self::Flock,
            Self::DistributedLock,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
        .with_context(|| format!("no kind `{name}`"))
    }
}

/// Takes one lock and gives it back.
trait Taker {
    fn take(&mut self) -> Result<()>;
    fn give(&mut self) -> Result<()>;
}

pub(crate) fn open_file(path: &Path) -> Result<File> {
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    options.with_context(|| format!("opening {}", path.display()))
}

/// The lock of one key in a directory.
pub(crate) fn our_lock(directory: &Path, name: &str) -> Result<Lock> {
    let backend = FileBackend::open(FileConfig::in_directory(directory.join("ours")))?;
    Ok(Lock::new(Arc::new(backend), LockKey::new(name)?))
}

struct Ours {
    lock: Lock,
    guard: Option<LockGuard>,
}

impl Ours {
    fn open(directory: &Path, mode: Mode) -> Result<Self> {
        let options = AcquireOptions::new().mode(mode).label("a bench");
        let lock = our_lock(directory, "contended")?.with_options(options);
        Ok(Self { lock, guard: None })
    }
}

impl Taker for Ours {
    fn take(&mut self) -> Result<()> {
        self.guard = Some(self.lock.acquire().wait()?);
        Ok(())
    }

    fn give(&mut self) -> Result<()> {
        if let Some(guard) = self.guard.take() {
            guard.release_blocking()?;
        }
        Ok(())
    }
}

struct Flock(File);

impl Taker for Flock {
    fn take(&mut self) -> Result<()> {
        Ok(self.0.lock()?)
    }

    fn give(&mut self) -> Result<()> {
        Ok(self.0.unlock()?)
    }
}

struct Distributed {
    runtime: tokio::runtime::Runtime,
    provider: FileLockProvider,
    handle: Option<FileLockHandle>,
}

impl Distributed {
    fn open(directory: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build()?;
        let directory = directory.join("distributed-lock");
        let provider = FileLockProvider::builder().directory(directory).build()?;
        Ok(Self {
            runtime,
            provider,
            handle: None,
        })
    }
}

impl Taker for Distributed {
    fn take(&mut self) -> Result<()> {
        let lock = self.provider.create_lock("contended");
        self.handle = Some(self.runtime.block_on(lock.acquire(None))?);
        Ok(())
    }

    fn give(&mut self) -> Result<()> {
        if let Some(handle) = self.handle.take() {
            self.runtime.block_on(handle.release())?;
        }
        Ok(())
    }
}

/// What a party found while it contended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) grants: u64,
    /// The longest time without a grant, in microseconds.
    pub(crate) longest_gap: u64,
    /// How often somebody else was inside.
    pub(crate) violations: u64,
}

/// The part that a second process plays: what is asked in lines, answered in lines.
pub(crate) fn play(arguments: &[String]) -> Result<()> {
    let [kind, directory] = arguments else {
        bail!("a party needs a kind and a directory");
    };
    let kind: Kind = kind.parse()?;
    let directory = Path::new(directory);
    let mut taker = kind.open(directory)?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["take"] => {
                taker.take()?;
                answer(monotonic_nanos())?;
            }
            ["give"] => {
                let before = monotonic_nanos();
                taker.give()?;
                // sleep: until the other party has it, for an answer would wake a third process
                std::thread::sleep(Duration::from_millis(1));
                answer(before)?;
            }
            ["contend", hold, milliseconds] => {
                let hold = Duration::from_micros(hold.parse()?);
                let until = Instant::now() + Duration::from_millis(milliseconds.parse()?);
                let inside = (kind != Kind::OursShared).then(|| directory.join("inside"));
                let share = contend(&mut *taker, hold, until, inside)?;
                answer(format!(
                    "{} {} {}",
                    share.grants, share.longest_gap, share.violations
                ))?;
            }
            ["cycles", count] => {
                let count: u32 = count.parse()?;
                let mut failed = Ok(());
                let nanos = lock_benches::nanoseconds_per_call(count, || {
                    if failed.is_ok() {
                        failed = taker.take().and_then(|()| taker.give());
                    }
                });
                failed?;
                answer(nanos)?;
            }
            _ => bail!("a party knows no `{line}`"),
        }
    }
    Ok(())
}

fn answer(what: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

/// The clock that all processes of the machine share.
pub(crate) fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Takes, works and gives in a loop. Whoever is inside writes a mark of its own into a file and
/// finds it there when it leaves, unless somebody else was let in.
fn contend(
    taker: &mut dyn Taker,
    hold: Duration,
    until: Instant,
    inside: Option<PathBuf>,
) -> Result<Share> {
    use std::os::unix::fs::FileExt as _;
    let inside = inside.as_deref().map(open_file).transpose()?;
    let mine = std::process::id().to_le_bytes();
    let mut share = Share::default();
    let mut last = Instant::now();
    while last < until {
        taker.take()?;
        let entered = Instant::now();
        let gap = entered.duration_since(last).as_micros() as u64;
        share.longest_gap = share.longest_gap.max(gap);
        share.grants += 1;
        last = entered;
        let mut found = [0; 4];
        if let Some(inside) = &inside {
            let read = inside.read_at(&mut found, 0)?;
            let occupied = read == 4 && found != [0; 4];
            inside.write_all_at(&mine, 0)?;
            spin(entered, hold);
            inside.read_exact_at(&mut found, 0)?;
            share.violations += u64::from(occupied || found != mine);
            inside.write_all_at(&[0; 4], 0)?;
        } else {
            // sleep: a reader's work, of which many overlap
            std::thread::sleep(hold);
        }
        taker.give()?;
    }
    Ok(share)
}

fn spin(start: Instant, duration: Duration) {
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Another process, as its parent sees it.
pub(crate) struct Party {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Party {
    pub(crate) fn start(kind: Kind, directory: &Path) -> Result<Self> {
        let directory = directory.to_str().context("a directory in UTF-8")?;
        let command = Role::new(ROLE).command(&[kind.name(), directory])?;
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let stdin = child.stdin.take().context("a pipe to the party")?;
        let stdout = child.stdout.take().context("a pipe from the party")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").context("telling a party")
    }

    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "a party ended early");
        Ok(line.trim().to_owned())
    }

    pub(crate) fn hear_number(&mut self) -> Result<f64> {
        let line = self.hear()?;
        line.parse().with_context(|| format!("a party said {line}"))
    }

    pub(crate) fn hear_share(&mut self) -> Result<Share> {
        let line = self.hear()?;
        let numbers: Vec<u64> = line
            .split(' ')
            .map_while(|word| word.parse().ok())
            .collect();
        let [grants, longest_gap, violations] = numbers[..] else {
            bail!("a party said {line}");
        };
        Ok(Share {
            grants,
            longest_gap,
            violations,
        })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
