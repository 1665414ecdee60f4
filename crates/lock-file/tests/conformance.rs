//! The conformance suite over lock files.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{Error, ErrorKind, LockBackend, LockKey, Result};
use lock_file::{FileBackend, FileConfig};
use lock_testkit::{Fault, Kit};

/// One directory; each client opens its files anew, as another process would.
#[derive(Debug)]
struct FileKit {
    /// Removed with the kit.
    parent: tempfile::TempDir,
}

impl FileKit {
    fn directory(&self) -> PathBuf {
        self.parent.path().join("locks")
    }
}

fn open(directory: impl Into<PathBuf>) -> Result<Arc<dyn LockBackend>> {
    let backend = FileBackend::open(FileConfig::in_directory(directory))?;
    Ok(Arc::new(backend))
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::new(ErrorKind::Backend, what).with_source(source)
}

#[async_trait]
impl Kit for FileKit {
    fn name(&self) -> &str {
        "file"
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        open(self.directory())
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        let directory = self.directory();
        let text = directory.to_str().ok_or("its path is no UTF-8")?;
        Ok(text.to_owned())
    }

    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>> {
        open(spec)
    }

    /// What stays for ever is a bounded number of files per name. Left over is what is neither, and
    /// any of them that is still locked: by the kernel's own list, which asks nobody's backend.
    async fn stored(&self) -> Result<Vec<String>> {
        let locks = std::fs::read_to_string("/proc/locks").map_err(failed("reading locks"))?;
        let listing = std::fs::read_dir(self.directory()).map_err(failed("listing"))?;
        let mut left = Vec::new();
        for entry in listing {
            let entry = entry.map_err(failed("listing"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (_, suffix) = name.rsplit_once('.').unwrap_or_default();
            let declared = matches!(suffix, "lock" | "turn")
                || suffix.starts_with("slot-")
                || name == "fencing";
            let Ok(inode) = entry.metadata().map(|found| found.ino()) else {
                continue;
            };
            let inode = format!(":{inode} ");
            if !declared || locks.lines().any(|line| line.contains(&inode)) {
                left.push(name);
            }
        }
        Ok(left)
    }

    fn lacks(&self, fault: Fault) -> Option<&'static str> {
        match fault {
            Fault::DeleteRecord => None,
            _ => Some("there is no server, no connection and no lease"),
        }
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        match fault {
            Fault::DeleteRecord => {
                let file = self.directory().join(format!("{}.lock", key.encoded()));
                std::fs::remove_file(file).map_err(failed("deleting a lock file"))
            }
            _ => Err(Error::unsupported("file", fault)),
        }
    }
}

fn main() -> std::process::ExitCode {
    let private = std::fs::Permissions::from_mode(0o700);
    let parent = tempfile::Builder::new().permissions(private).tempdir();
    let parent = parent.expect("a directory for the suite");
    lock_testkit::main(FileKit { parent })
}
