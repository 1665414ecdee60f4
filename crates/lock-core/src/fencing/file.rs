//! The checker for a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use super::register::check;
use crate::{FencingNumber, FencingToken};

/// A file that only takes contents whose fencing token is not behind.
///
/// The highest token stands in `<file>.fence`. A write takes the kernel lock of that file, compares,
/// records the token, and replaces the contents by renaming a finished copy (`<file>.new`): a crash
/// leaves the old or the new contents, never a part.
#[derive(Debug)]
pub struct FencedFile {
    path: PathBuf,
}

impl FencedFile {
    /// The file at `path`; nothing is opened or created yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Replaces the contents unless a higher token has written.
    ///
    /// # Errors
    /// The I/O error of any step; a stale token is one of kind
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) whose inner error is a
    /// [`StaleToken`](super::StaleToken). The contents are then as they were.
    ///
    /// # Blocking
    /// Waits for other writers of the same file, and for the disk.
    pub fn write(&self, token: FencingToken, contents: &[u8]) -> io::Result<()> {
        let mut fence = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.beside("fence"))?;
        // Held until `fence` is dropped, past the rename below.
        fence.lock()?;
        check(read_token(&mut fence)?, token)
            .map_err(|stale| io::Error::new(io::ErrorKind::PermissionDenied, stale))?;
        // The token is on disk before the contents change: a crash in between refuses the late
        // writer all the same.
        write_token(&mut fence, token)?;
        let copy = self.beside("new");
        let mut file = File::create(&copy)?;
        file.write_all(contents)?;
        file.sync_data()?;
        std::fs::rename(copy, &self.path)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

/// Fixed width, so that a later token overwrites an earlier one whole.
const TOKEN_LEN: usize = 31;

fn write_token(fence: &mut File, token: FencingToken) -> io::Result<()> {
    fence.rewind()?;
    writeln!(fence, "{:010}:{:019}", token.epoch(), token.number().get())?;
    fence.sync_data()
}

fn read_token(fence: &mut File) -> io::Result<Option<FencingToken>> {
    let mut text = String::new();
    fence.rewind()?;
    fence.read_to_string(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = || {
        let (epoch, number) = text.trim_end().split_once(':')?;
        let number = FencingNumber::from_raw(number.parse().ok()?)?;
        (text.len() == TOKEN_LEN).then_some(FencingToken::new(epoch.parse().ok()?, number))
    };
    // A file that cannot be read must not let a late writer pass.
    parsed().map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the fence file is damaged; delete it once no old writer can be alive",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u32, base: u64) -> FencingToken {
        FencingToken::new(epoch, FencingNumber::from_base(base).unwrap())
    }

    #[test]
    fn a_late_writer_leaves_the_contents_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = FencedFile::new(&path);
        file.write(token(0, 9), b"nine").unwrap();
        assert!(file.write(token(0, 8), b"eight").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"nine");
        file.write(token(1, 1), b"new epoch").unwrap();
        assert!(file.write(token(0, 10), b"ten").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"new epoch");
    }

    #[test]
    fn a_damaged_fence_refuses_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::write(dir.path().join("state.fence"), "0000").unwrap();
        let error = FencedFile::new(path).write(token(0, 1), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
