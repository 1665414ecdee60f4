//! Writing a history down, and reading several of them back.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;

use lock_core::LockGuard;
use lock_core::clock::Instant;

use super::{Event, What, fencing_of};

/// Writes events to a file of this process, one line each, so that those of a killed process remain.
///
/// Threads share it: a line is one write.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    process: u32,
}

impl Recorder {
    /// Opens a file of this process in `directory`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(directory: &Path) -> io::Result<Self> {
        let process = std::process::id();
        let path = directory.join(format!("history-{process}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, process })
    }

    /// Writes down that `guard` was just acquired.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn enter(&self, guard: &LockGuard) -> io::Result<()> {
        // Invariant: read after the acquire has returned.
        let at = Instant::now();
        let what = What::Enter {
            mode: guard.mode().into(),
            fencing: fencing_of(guard),
        };
        self.write(guard, at, what)
    }

    /// Writes down that `guard` is about to be released. A guard that was lost is not: when it
    /// ended is unknown, and its interval ends where it began.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn leave(&self, guard: &LockGuard) -> io::Result<()> {
        // Invariant: the clock is read before the validity, so the hold covers the whole interval.
        let at = Instant::now();
        if !guard.is_held() {
            return Ok(());
        }
        self.write(guard, at, What::Leave)
    }

    fn write(&self, guard: &LockGuard, at: Instant, what: What) -> io::Result<()> {
        let event = Event {
            at: at.as_nanos(),
            process: self.process,
            key: guard.key().qualified().to_owned(),
            attempt: guard.attempt().to_string(),
            what,
        };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }
}

/// Reads the histories of all processes that wrote to `directory`. The last line of a killed process
/// may be cut short; it is left out.
///
/// # Errors
/// When a file cannot be read, or a line in the middle is malformed.
pub fn read(directory: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let mut lines = BufReader::new(File::open(entry?.path())?)
            .lines()
            .peekable();
        while let Some(line) = lines.next() {
            match serde_json::from_str(&line?) {
                Ok(event) => events.push(event),
                Err(_) if lines.peek().is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(events)
}
