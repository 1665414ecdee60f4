//! Another user, in a directory that everybody may write to.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lock_core::ErrorKind;
use lock_file::{FileBackend, FileConfig};
use support::{lock, open};

/// A directory like `/tmp`.
fn shared_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // Not at its making, where the umask takes rights away.
    let everybody = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(directory.path(), everybody).unwrap();
    directory
}

const STRANGER: u32 = 65_534;

/// Runs a line of shell as another user; `false` when it fails, which it must only where it says.
fn stranger(line: &str) -> Option<bool> {
    if !rustix::process::geteuid().is_root() {
        skip("acting as another user needs root");
        return None;
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/");
    Some(shell.output().unwrap().status.success())
}

#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

fn refused(path: &Path) -> ErrorKind {
    let error = FileBackend::open(FileConfig::in_directory(path)).unwrap_err();
    error.kind()
}

#[test]
fn a_directory_that_a_stranger_made_first_is_refused() {
    let tmp = shared_directory();
    let path = tmp.path().join("lock-0");
    let shown = path.display();
    for line in [
        format!("mkdir -m 0700 {shown}"),
        format!("mkdir -m 0777 {shown}"),
    ] {
        let Some(made) = stranger(&line) else { return };
        assert!(made, "{line}");
        assert_eq!(refused(&path), ErrorKind::PermissionDenied);
        assert_eq!(
            fs::read_dir(&path).unwrap().count(),
            0,
            "nothing was written there"
        );
        fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn a_link_that_a_stranger_made_is_not_followed() {
    let tmp = shared_directory();
    let (path, mine) = (tmp.path().join("lock-0"), tmp.path().join("mine"));
    fs::create_dir(&mine).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o700)).unwrap();
    let line = format!("ln -s {} {}", mine.display(), path.display());
    let Some(made) = stranger(&line) else { return };
    assert!(made);
    assert_eq!(refused(&path), ErrorKind::PermissionDenied);
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 0);
}

#[test]
fn a_stranger_can_neither_enter_nor_replace_the_directory() {
    let tmp = shared_directory();
    let path = tmp.path().join("lock-0");
    let backend = open(&path);
    let guard = lock(&backend, "x").try_acquire().wait().unwrap().unwrap();
    let shown = path.display();
    for line in [
        format!("cat {shown}/x.lock"),
        format!("touch {shown}/y.lock"),
        format!("flock -n {shown}/x.lock true"),
        format!("rm -rf {shown}/x.lock"),
        format!("mv {shown} {shown}-away"),
    ] {
        let Some(done) = stranger(&line) else { return };
        // `rm -f` says nothing of what it may not see.
        assert!(!done || line.starts_with("rm"), "{line}");
    }
    assert!(path.join("x.lock").exists());
    assert!(guard.is_held());
    assert_eq!(
        guard.release_blocking().unwrap(),
        lock_core::Released::Released
    );
}

#[test]
fn files_of_a_stranger_and_links_inside_are_refused() {
    let tmp = shared_directory();
    let path = tmp.path().join("locks");
    let backend = open(&path);
    let victim = tmp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["x.lock", "fencing"] {
        let planted = path.join(name);
        symlink(&victim, &planted).unwrap();
        let error = lock(&backend, "x").try_acquire().wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}: {error}");
        fs::remove_file(&planted).unwrap();
        fs::write(&planted, vec![0; 8192]).unwrap();
        if std::os::unix::fs::chown(&planted, Some(STRANGER), None).is_ok() {
            let error = lock(&backend, "x").try_acquire().wait().unwrap_err();
            assert!(
                error.to_string().contains("another user"),
                "{name}: {error}"
            );
        }
        fs::remove_file(&planted).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(lock(&backend, "x").try_acquire().wait().unwrap().is_some());
}
