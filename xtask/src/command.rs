//! Starting other programs, so that whatever fails can be repeated by pasting one line.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a program with a time limit is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// A program to start. Its `Display` is the line that repeats it in a shell.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
    directory: Option<PathBuf>,
}

impl Program {
    /// Splits `line` at white space; a word that contains some is added with [`Program::arg`].
    pub(crate) fn new(line: &str) -> Self {
        Self {
            words: line.split_whitespace().map(Into::into).collect(),
            variables: Vec::new(),
            directory: None,
        }
    }

    /// A program by its path, which may contain anything.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            words: vec![path.display().to_string()],
            variables: Vec::new(),
            directory: None,
        }
    }

    pub(crate) fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Starts it in this directory rather than in ours.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Runs to the end with the terminal as its output.
    pub(crate) fn run(&self) -> Result<()> {
        let status = self
            .command()
            .status()
            .with_context(|| self.did_not_start())?;
        self.expect_success(status)
    }

    /// Runs to the end, or kills the program when it takes longer than `limit`.
    pub(crate) fn run_within(&self, limit: Duration) -> Result<()> {
        self.finish_within(self.command(), limit)
    }

    /// Runs to the end and returns what was written to standard output.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let output = self
            .command()
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| self.did_not_start())?;
        self.expect_success(output.status)?;
        Ok(output.stdout)
    }

    /// Runs to the end, passing each line of standard output on as it comes, and to `on_line`.
    pub(crate) fn run_watched(&self, mut on_line: impl FnMut(&str)) -> Result<()> {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| self.did_not_start())?;
        let output = child
            .stdout
            .take()
            .context("standard output was not piped")?;
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // Bytes, not strings: a test may print anything.
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            on_line(&text);
            line.clear();
        }
        self.expect_success(child.wait()?)
    }

    /// As [`run_within`](Self::run_within), with a file as its output and its error stream.
    pub(crate) fn run_into(&self, file: &Path, limit: Duration) -> Result<()> {
        let output = File::create(file).with_context(|| format!("{}", file.display()))?;
        let mut command = self.command();
        command.stdout(output.try_clone()?).stderr(output);
        self.finish_within(command, limit)
    }

    fn finish_within(&self, mut command: Command, limit: Duration) -> Result<()> {
        let mut child = command.spawn().with_context(|| self.did_not_start())?;
        match wait_within(&mut child, limit)? {
            Some(status) => self.expect_success(status),
            None => {
                child.kill()?;
                child.wait()?;
                bail!("`{self}` did not end within {limit:?}");
            }
        }
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command
            .args(words)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn did_not_start(&self) -> String {
        format!("`{self}` could not be started; is the program installed?")
    }

    fn expect_success(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        f.write_str(&words.join(" "))
    }
}

fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_is_shown_as_a_line_for_the_shell() {
        let program = Program::new("cargo doc --workspace")
            .arg("it's")
            .env("FLAGS", "-D warnings");
        assert_eq!(
            program.to_string(),
            r"FLAGS='-D warnings' cargo doc --workspace 'it'\''s'"
        );
    }

    #[test]
    fn every_line_is_seen_and_a_failure_names_the_command() {
        let mut lines = Vec::new();
        let script = Program::new("sh -c").arg("echo one; echo two; exit 3");
        let error = script
            .run_watched(|line| lines.push(line.trim().to_owned()))
            .unwrap_err();
        assert_eq!(lines, ["one", "two"]);
        assert!(error.to_string().contains("echo two"), "{error}");
    }

    #[test]
    fn both_streams_go_to_the_file_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("output");
        let script = Program::new("sh -c").arg("echo one; echo two >&2; pwd; exit 3");
        let result = script.within(Path::new("/")).run_into(&file, TIME);
        assert!(result.is_err());
        let output = std::fs::read_to_string(file).unwrap();
        assert_eq!(output, "one\ntwo\n/\n");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let error = Program::new("sleep 600")
            .run_within(Duration::from_millis(50))
            .unwrap_err();
        assert!(
            error.to_string().contains("did not end within 50ms"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("no-such-program-here").run().unwrap_err();
        assert!(
            error.to_string().contains("no-such-program-here"),
            "{error}"
        );
    }
}
