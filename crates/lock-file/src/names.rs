//! The files of one key.

use std::path::PathBuf;
use std::sync::Arc;

use lock_core::LockKey;
use lock_core::host::WatchedFile;

use crate::directory::Directory;

/// The files of one key. No two keys share one: the part before the last dot is the key's own.
///
/// - `.lock`: who holds (the kernel's lock on it), the fencing counter, the exclusive holder's
///   record, the bells
/// - `.turn`: held by whoever asks, and by the process that is next
/// - `.slot-N`: a permit, or the record of a shared holder
#[derive(Clone, Debug)]
pub(crate) struct Names {
    directory: Arc<Directory>,
    stem: String,
}

pub(crate) const LOCK: &str = ".lock";
pub(crate) const TURN: &str = ".turn";
pub(crate) const SLOT: &str = ".slot-";

impl Names {
    pub(crate) fn of(directory: &Arc<Directory>, key: &LockKey) -> Self {
        Self {
            directory: Arc::clone(directory),
            stem: key.encoded(),
        }
    }

    /// The files with this beginning of their names.
    pub(crate) fn of_stem(directory: &Arc<Directory>, stem: &str) -> Self {
        Self {
            directory: Arc::clone(directory),
            stem: stem.to_owned(),
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.file(LOCK)
    }

    pub(crate) fn turn(&self) -> PathBuf {
        self.file(TURN)
    }

    pub(crate) fn slot(&self, number: u32) -> PathBuf {
        self.file(&format!("{SLOT}{number}"))
    }

    /// What tells that something was given back: both files are closed when their process dies,
    /// and a listener is told by a write to the one that it waits for.
    pub(crate) fn watched(&self, listens: Option<crate::page::Bell>) -> [WatchedFile; 2] {
        use crate::page::Bell;
        [(self.lock(), Bell::Lock), (self.turn(), Bell::Turn)].map(|(path, bell)| WatchedFile {
            path,
            writes: listens == Some(bell),
        })
    }

    /// A name that no other process uses, for a file that replaces `.lock`.
    pub(crate) fn replacement(&self) -> PathBuf {
        let unique = lock_core::OwnerToken::mint();
        self.file(&format!(".new-{unique}"))
    }

    /// The numbers of the slot files that exist, in order.
    pub(crate) fn slots_on_disk(&self) -> Vec<u32> {
        let prefix = format!("{}{SLOT}", self.stem);
        let Ok(entries) = std::fs::read_dir(self.directory.path()) else {
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
        let directory = self.directory.path();
        let len = directory.as_os_str().len() + 1 + self.stem.len() + suffix.len();
        let mut path = PathBuf::with_capacity(len);
        path.push(directory);
        path.push(&self.stem);
        path.as_mut_os_string().push(suffix);
        path
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    fn directory() -> Arc<Directory> {
        Arc::new(Directory::new(Path::new("/d")))
    }

    #[test]
    fn keys_that_look_like_files_of_others_share_none() {
        let mut seen = HashSet::new();
        for name in ["a", "a.lock", "a.slot-1", "a.slot", "a.turn", "A", "a/b"] {
            let names = Names::of(&directory(), &LockKey::new(name).unwrap());
            for file in [names.lock(), names.turn(), names.slot(1)] {
                assert!(seen.insert(file.clone()), "{} twice", file.display());
            }
        }
    }

    #[test]
    fn the_longest_name_fits_a_file_system() {
        let key = LockKey::new("x".repeat(4096)).unwrap();
        let key = key.in_namespace(&"n".repeat(64)).unwrap();
        let names = Names::of(&directory(), &key);
        for file in [names.slot(u32::MAX), names.replacement()] {
            assert!(file.file_name().unwrap().len() <= 255);
        }
    }
}
