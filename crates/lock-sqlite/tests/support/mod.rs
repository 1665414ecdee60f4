//! Directories, backends and file systems for tests.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a part of tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::{InspectQuery, KeyReport, Lock, LockBackend, LockKey, block_on};
use lock_sqlite::{SqliteBackend, SqliteConfig};

pub(crate) fn directory() -> tempfile::TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    builder.permissions(private).tempdir().unwrap()
}

pub(crate) fn open(path: &Path) -> SqliteBackend {
    SqliteBackend::open(SqliteConfig::at(path)).unwrap()
}

pub(crate) fn lock(backend: &SqliteBackend, name: &str) -> Lock {
    Lock::new(Arc::new(backend.clone()), LockKey::new(name).unwrap())
}

pub(crate) fn report(backend: &SqliteBackend, name: &str) -> Option<KeyReport> {
    let query = InspectQuery::key(LockKey::new(name).unwrap());
    block_on(backend.inspect(query)).unwrap().keys.pop()
}

/// Polls until `done`, or fails with `what`.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        // sleep: polling for what another thread or process does
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub(crate) fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A file system of one test, unmounted with it.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn tmpfs(parent: &Path, options: &str) -> Option<Self> {
        let path = parent.join("mounted");
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let status = mount.arg(&path).status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn remount_read_only(&self) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", "remount,ro"]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
