//! The files of one key.

use std::path::{Path, PathBuf};

use lock_core::LockKey;
use lock_core::host::WatchedFile;

/// The files of one key. No two keys share one: the part before the last dot is the key's own.
///
/// - `.lock`: who holds (the kernel's lock on it), the fencing counter, the exclusive holder's record
/// - `.gate`: held for the microseconds in which somebody asks; carries marks and wake-ups
/// - `.turn`: held by the process that is next
/// - `.slot-N`: a permit, or the record of a shared holder
#[derive(Clone, Debug)]
pub(crate) struct Names {
    directory: PathBuf,
    stem: String,
}

pub(crate) const LOCK: &str = ".lock";

impl Names {
    pub(crate) fn of(directory: &Path, key: &LockKey) -> Self {
        Self {
            directory: directory.to_owned(),
            stem: key.encoded(),
        }
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.file(LOCK)
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.file(".gate")
    }

    pub(crate) fn turn(&self) -> PathBuf {
        self.file(".turn")
    }

    pub(crate) fn slot(&self, number: u32) -> PathBuf {
        self.file(&format!(".slot-{number}"))
    }

    /// What tells that somebody gave something back: wake-ups are written to the gate, the rest is
    /// closed when its process dies.
    pub(crate) fn watched(&self) -> [WatchedFile; 3] {
        [
            (self.gate(), true),
            (self.lock(), false),
            (self.turn(), false),
        ]
        .map(|(path, writes)| WatchedFile { path, writes })
    }

    /// A name that no other process uses, for a file that replaces `.lock`.
    pub(crate) fn replacement(&self) -> PathBuf {
        let unique = lock_core::OwnerToken::mint();
        self.file(&format!(".new-{unique}"))
    }

    /// The numbers of the slot files that exist, in order.
    pub(crate) fn slots_on_disk(&self) -> Vec<u32> {
        let prefix = format!("{}.slot-", self.stem);
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_prefix(&prefix)?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.stem))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_that_look_like_files_of_others_share_none() {
        let mut seen = HashSet::new();
        for name in ["a", "a.lock", "a.slot-1", "a.slot", "a.gate", "A", "a/b"] {
            let names = Names::of(Path::new("/d"), &LockKey::new(name).unwrap());
            for file in [names.lock(), names.gate(), names.turn(), names.slot(1)] {
                assert!(seen.insert(file.clone()), "{} twice", file.display());
            }
        }
    }

    #[test]
    fn the_longest_name_fits_a_file_system() {
        let key = LockKey::new("x".repeat(4096)).unwrap();
        let key = key.in_namespace(&"n".repeat(64)).unwrap();
        let names = Names::of(Path::new("/d"), &key);
        for file in [names.slot(u32::MAX), names.replacement()] {
            assert!(file.file_name().unwrap().len() <= 255);
        }
    }
}
