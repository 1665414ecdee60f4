//! What became of every case, for machines.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Collects outcomes from parallel trials.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cases: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    name: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    backend: &'a str,
    cases: &'a [Entry],
}

impl Report {
    pub(crate) fn passed(&self, name: &str) {
        self.add(name, "passed", None);
    }

    pub(crate) fn failed(&self, name: &str, reason: String) {
        self.add(name, "failed", Some(reason));
    }

    pub(crate) fn not_applicable(&self, name: &str, reason: String) {
        self.add(name, "not-applicable", Some(reason));
    }

    fn add(&self, name: &str, outcome: &'static str, reason: Option<String>) {
        let name = name.to_owned();
        self.lock().push(Entry {
            name,
            outcome,
            reason,
        });
    }

    /// How many cases ran.
    pub(crate) fn ran(&self) -> usize {
        let cases = self.lock();
        cases
            .iter()
            .filter(|case| case.outcome != "not-applicable")
            .count()
    }

    /// Writes `<directory>/<backend>.json`.
    pub(crate) fn write(&self, directory: &Path, backend: &str) -> io::Result<()> {
        let mut cases = self.lock().clone();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        let document = Document {
            backend,
            cases: &cases,
        };
        fs::create_dir_all(directory)?;
        let text = serde_json::to_string_pretty(&document)?;
        fs::write(directory.join(format!("{backend}.json")), text + "\n")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
