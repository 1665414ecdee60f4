//! Other processes that use locks: this test program again, driven by lines of text.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a part of tests")]
#![allow(clippy::print_stdout, reason = "the parent reads it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, InspectQuery, Lock, LockGuard, LockKey, Mode, block_on};
use lock_file::{FileBackend, FileConfig};
use lock_testkit::fork::Forked;
use rustix::process::{Pid, Resource, Rlimit, Signal};

const DIRECTORY: &str = "LOCK_FILE_TEST_DIRECTORY";

pub(crate) fn directory() -> tempfile::TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    builder.permissions(private).tempdir().unwrap()
}

pub(crate) fn open(directory: &Path) -> FileBackend {
    FileBackend::open(FileConfig::in_directory(directory)).unwrap()
}

pub(crate) fn lock(backend: &FileBackend, name: &str) -> Lock {
    Lock::new(Arc::new(backend.clone()), LockKey::new(name).unwrap())
}

pub(crate) fn options(mode: &str) -> AcquireOptions {
    let mode = match mode {
        "exclusive" => Mode::Exclusive,
        "shared" => Mode::Shared,
        of => Mode::permit(of.parse().unwrap()).unwrap(),
    };
    AcquireOptions::new().mode(mode).label("a test's process")
}

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `done`, or fails with `what`.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        // sleep: polling for a state of another process
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn holders(backend: &FileBackend, name: &str) -> Vec<lock_core::PartyRecord> {
    report(backend, name).map_or_else(Vec::new, |report| report.holders)
}

pub(crate) fn waiters(backend: &FileBackend, name: &str) -> Vec<lock_core::PartyRecord> {
    report(backend, name).map_or_else(Vec::new, |report| report.waiters)
}

/// Whether somebody has the turn of a key, by the kernel's own list: a look that opens none of its
/// files, so that no watch of a waiter hears of it.
#[cfg(target_os = "linux")]
pub(crate) fn turn_is_taken(directory: &Path, name: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(turn) = std::fs::metadata(directory.join(format!("{name}.turn"))) else {
        return false;
    };
    let inode = format!(":{} ", turn.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains(&inode))
}

fn report(backend: &FileBackend, name: &str) -> Option<lock_core::KeyReport> {
    use lock_core::LockBackend;
    let query = InspectQuery::key(LockKey::new(name).unwrap());
    block_on(backend.inspect(query)).unwrap().keys.pop()
}

/// A process that does what it is told.
pub(crate) struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peer_program", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// The next answer.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended");
            // The test harness prints lines, and parts of lines, of its own.
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.trim().to_owned();
            }
        }
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.hear()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(self.pid(), signal);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process may be no child of ours.
pub(crate) fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(process.cast_signed()).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

/// The body of the `peer_program` test.
pub(crate) fn run_peer() {
    let directory = std::env::var_os(DIRECTORY).expect("started by another test");
    let backend = open(Path::new(&directory));
    let mut held: Vec<LockGuard> = Vec::new();
    let mut spawned: Vec<Child> = Vec::new();
    let mut crowd = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["acquire", mode, name] => {
                let guard = lock(&backend, name).acquire_with(&options(mode)).wait();
                described(guard.map(Some), &mut held)
            }
            ["try", mode, name] => {
                let guard = lock(&backend, name).try_acquire_with(&options(mode)).wait();
                described(guard, &mut held)
            }
            ["release"] => format!("{:?}", held.pop().unwrap().release_blocking()),
            ["downgrade"] => format!("{:?}", block_on(held[0].downgrade())),
            ["lost"] => format!("{:?}", held[0].lost().wait_for(PATIENCE)),
            ["count", path, name, rounds] => {
                count(&backend, path, name, rounds.parse().unwrap());
                "counted".into()
            }
            ["waiters", name] => {
                let labels = waiters(&backend, name).into_iter().map(|party| party.label);
                format!("{:?}", labels.flatten().collect::<Vec<_>>())
            }
            ["crowd", size, name] => {
                let size = size.parse().unwrap();
                crowd.extend((0..size).map(|_| lock(&backend, name).acquire()));
                for acquire in &mut crowd {
                    assert!(acquire.try_take().is_none());
                }
                "queued".into()
            }
            ["limit", files] => limit_files(files.parse().unwrap()),
            ["touch", count] => touch(&backend, count.parse().unwrap()),
            ["exhaust"] => exhaust(&backend),
            ["sleeper"] => {
                let sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
                let pid = sleeper.id();
                spawned.push(sleeper);
                pid.to_string()
            }
            ["fork", name] => fork_and_use(&backend, name, &mut held),
            _ => panic!("unknown: {line}"),
        };
        println!("> {answer}");
    }
}

fn described(outcome: lock_core::Result<Option<LockGuard>>, held: &mut Vec<LockGuard>) -> String {
    match outcome {
        Ok(Some(guard)) => {
            held.push(guard);
            "held".into()
        }
        Ok(None) => "contended".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Adds to a number in a file, without any care but the lock.
fn count(backend: &FileBackend, path: &str, name: &str, rounds: u32) {
    for _ in 0..rounds {
        let guard = lock(backend, name).acquire().wait().unwrap();
        let number = guard.fencing_token().unwrap().number().get();
        let text = std::fs::read_to_string(path).unwrap();
        let (count, highest) = text.split_once(' ').unwrap();
        let (count, highest): (u32, u64) = (count.parse().unwrap(), highest.parse().unwrap());
        assert!(number > highest, "{number} came after {highest}");
        std::fs::write(path, format!("{} {number}", count + 1)).unwrap();
        guard.release_blocking().unwrap();
    }
}

fn limit_files(files: u64) -> String {
    let limit = Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    let set = rustix::process::setrlimit(Resource::Nofile, limit);
    set.map_or_else(|error| error.to_string(), |()| "0".to_owned())
}

/// Uses many names, one after another.
fn touch(backend: &FileBackend, count: u32) -> String {
    for number in 0..count {
        if let Err(error) = lock(backend, &format!("touched {number}")).acquire().wait() {
            return format!("{number}: {error}");
        }
    }
    "touched".into()
}

/// Takes locks until it is refused one, gives one back, and takes the refused one.
fn exhaust(backend: &FileBackend) -> String {
    let mut held = Vec::new();
    loop {
        let next = lock(backend, &format!("held {}", held.len()));
        match next.acquire().wait() {
            Ok(guard) => held.push(guard),
            Err(error) => {
                drop(held.pop());
                let again = next.acquire().wait().is_ok();
                return format!("{} {again} {:?} {error}", held.len(), error.kind());
            }
        }
    }
}

/// Forks while holding. The child finds its guard lost, sees the key held, drops the guard, and
/// stays; the pid is its own.
fn fork_and_use(backend: &FileBackend, name: &str, held: &mut Vec<LockGuard>) -> String {
    let child = Forked::start(|| {
        let lost = held[0].loss() == Some(lock_core::LossReason::Forked);
        held.clear();
        let contended = lock(backend, name).try_acquire().wait();
        if lost && matches!(contended, Ok(None)) {
            // Waits for the parent's release, as a process of its own, and tells by the record.
            let guard = lock(backend, name)
                .acquire_with(&AcquireOptions::new().label("the forked child"))
                .wait();
            std::mem::forget(guard);
        }
        loop {
            // The test kills this process.
            std::thread::park();
        }
    });
    child.unwrap().pid().to_string()
}
