//! A place for locks of a test's own, and commands that tell what they do through files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// A directory with lock files, a configuration that names them, and room for the test's files.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let locks = dir.path().join("locks");
        let config = format!(
            "backend = \"file\"\n[file]\ndirectory = \"{}\"\n",
            locks.display()
        );
        fs::write(dir.path().join("locks.toml"), config).unwrap();
        Self { dir }
    }

    /// A file of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `lockctl` with arguments, in this place: commands find the test's files by bare names.
    pub(crate) fn lockctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockctl"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("LOCKCTL_CONFIG", self.file("locks.toml"))
            .stdin(Stdio::null());
        command
    }

    /// `lockctl run key args… -- sh -c script`.
    pub(crate) fn run(&self, key: &str, args: &[&str], script: &str) -> Command {
        let mut command = self.lockctl(&["run", key]);
        command.args(args).args(["--", "sh", "-c", script]);
        command
    }

    /// The same, run to its end.
    pub(crate) fn outcome(&self, key: &str, args: &[&str], script: &str) -> Outcome {
        Outcome::of(&mut self.run(key, args, script))
    }

    /// A holder of `key`, in and holding until it is told to go or dropped.
    pub(crate) fn holder(&self, key: &str, args: &[&str]) -> Running {
        let (up, go) = (self.fresh("up"), self.fresh("go"));
        let script = format!(
            "echo $$ > {up}.new && mv {up}.new {up}; until [ -e {go} ]; do sleep 0.01; done",
            up = up.display(),
            go = go.display()
        );
        let running = Running::start(self.run(key, args, &script), go);
        wait_for(&up);
        running
    }

    /// Starts a command that waits for `key`, and returns when it stands in the queue.
    pub(crate) fn waiter(&self, key: &str, args: &[&str], script: &str) -> Running {
        let before = self.show(key)["waiters"].as_array().unwrap().len();
        let running = Running::start(self.run(key, args, script), self.fresh("go"));
        until("the waiter is queued", || {
            self.show(key)["waiters"].as_array().unwrap().len() > before
        });
        running
    }

    /// `lockctl show key --json`.
    pub(crate) fn show(&self, key: &str) -> serde_json::Value {
        let shown = Outcome::of(&mut self.lockctl(&["show", key, "--json"]));
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        serde_json::from_str(&shown.stdout).unwrap()
    }

    /// The lines of a file of the test; none if it is not there.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn fresh(&self, name: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.file(&format!("{name}-{number}"))
    }
}

/// What a finished `lockctl` left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("lockctl itself was killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A `lockctl run` under way.
pub(crate) struct Running {
    child: Option<Child>,
    go: PathBuf,
}

impl Running {
    pub(crate) fn start(mut command: Command, go: PathBuf) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            child: Some(command.spawn().unwrap()),
            go,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Lets a holder end its command.
    pub(crate) fn go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    /// Waits for the end.
    pub(crate) fn outcome(mut self) -> Outcome {
        let mut child = self.child.take().unwrap();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("lockctl did not end: {:?}", child.wait_with_output());
            }
            pause();
        }
        child.wait_with_output().unwrap().into()
    }

    /// Kills lockctl itself, outright.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::write(&self.go, "");
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        pause();
    }
}

/// Waits until a file is there.
#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    until(&path.display().to_string(), || path.exists());
}

/// Waits until a process is gone. A zombie counts as gone: its parent may be slow to reap it.
#[track_caller]
pub(crate) fn until_gone(pid: &str) {
    let pid: i32 = pid.parse().unwrap();
    until("the process is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state == Some('Z') || test_kill_process(Pid::from_raw(pid).unwrap()).is_err()
    });
}

fn pause() {
    // sleep: between two looks at a condition of another process
    std::thread::sleep(Duration::from_millis(5));
}
