//! Shells that run `lockctl` side by side, with locks of their own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The `lockctl` of this workspace, built by the cargo that runs the test.
static LOCKCTL: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Command::new(crate::text::cargo())
        .args([
            "build",
            "--locked",
            "-p",
            "lock-cli",
            "--message-format=json",
        ])
        .current_dir(crate::text::ROOT)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{told}");
    let lines = built.stdout.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice(line).ok());
    let executable = |message: serde_json::Value| {
        let is_it = message["target"]["name"] == "lockctl";
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages
        .filter_map(executable)
        .next()
        .expect("cargo tells where lockctl is")
});

/// A few shells of one user, whose locks nobody else uses.
pub(crate) struct Shells {
    directory: TempDir,
}

impl Shells {
    pub(crate) fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    pub(crate) fn lockctl(&self) -> Command {
        let mut command = Command::new(&*LOCKCTL);
        command
            .current_dir(self.directory.path())
            .env("XDG_RUNTIME_DIR", self.directory.path())
            .env_remove("LOCKCTL_CONFIG")
            .stdin(Stdio::null());
        command
    }

    /// Runs, under the lock, a command that works until it gets a line on its stdin.
    pub(crate) fn run(&self, name: &str) -> Shell {
        let script = format!(
            "echo '{name} in' >> history; echo in; read line; echo '{name} out' >> history"
        );
        let mut command = self.lockctl();
        command
            .args(["run", "nightly-import", "--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut lockctl = command.spawn().unwrap();
        let output = BufReader::new(lockctl.stdout.take().unwrap());
        Shell {
            lockctl: Some(lockctl),
            output,
        }
    }

    /// The same, once it stands in the queue.
    pub(crate) fn waiting(&self, name: &str) -> Shell {
        let shell = self.run(name);
        until("it waits", || self.waiters() == 1);
        shell
    }

    /// The exit code of a run that does not wait.
    pub(crate) fn try_now(&self) -> Option<i32> {
        let mut command = self.lockctl();
        command.args(["run", "nightly-import", "--no-wait", "--", "true"]);
        command.output().unwrap().status.code()
    }

    /// What the commands did, in order.
    pub(crate) fn history(&self) -> Vec<String> {
        let path: &Path = self.directory.path();
        let text = std::fs::read_to_string(path.join("history")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn waiters(&self) -> usize {
        let mut command = self.lockctl();
        let shown = command.args(["show", "nightly-import", "--json"]).output();
        let report: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
        report["waiters"].as_array().unwrap().len()
    }
}

/// A shell in which `lockctl run` waits or works. It is killed when it is dropped.
pub(crate) struct Shell {
    lockctl: Option<Child>,
    output: BufReader<ChildStdout>,
}

impl Shell {
    /// Waits until its command runs.
    pub(crate) fn is_in(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
    }

    /// Lets the command end.
    pub(crate) fn end(mut self) -> ExitStatus {
        let mut lockctl = self.lockctl.take().unwrap();
        lockctl.stdin.take().unwrap().write_all(b"\n").unwrap();
        lockctl.wait().unwrap()
    }

    /// Kills `lockctl` outright, and returns when its command has died of that as well.
    pub(crate) fn kill(mut self) {
        let mut lockctl = self.lockctl.take().unwrap();
        // Kept open: the command must die by the kill, not by the end of its input.
        let input = lockctl.stdin.take();
        lockctl.kill().unwrap();
        lockctl.wait().unwrap();
        let mut rest = String::new();
        // Ends when the last process that writes there has gone.
        self.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        drop(input);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(mut lockctl) = self.lockctl.take() {
            let _ = lockctl.kill();
            let _ = lockctl.wait();
        }
    }
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "in vain: {what}"
        );
        // sleep: between two looks at what other processes do
        std::thread::sleep(Duration::from_millis(5));
    }
}
