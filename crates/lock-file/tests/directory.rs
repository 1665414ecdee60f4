//! Directories that cannot be used, and files that are in the way.
#![allow(clippy::unwrap_used, reason = "tests, with helpers of their own")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lock_core::{ErrorKind, block_on};
use lock_file::{FileBackend, FileConfig, NetworkFilesystem};
use support::{directory, lock, open};

fn refused(path: &Path) -> (ErrorKind, String) {
    let error = FileBackend::open(FileConfig::in_directory(path)).unwrap_err();
    (error.kind(), error.to_string())
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_directory_is_made_privately_and_nothing_is_left_in_it() {
    let parent = directory();
    let path = parent.path().join("locks");
    let backend = open(&path);
    assert_eq!(backend.directory(), path);
    assert_eq!(mode(&path), 0o700);
    assert!(entries(&path).is_empty());
    let guard = lock(&backend, "x").try_acquire().wait().unwrap().unwrap();
    for file in entries(&path) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(guard);
    assert!(path.join("x.lock").exists(), "a lock file is never deleted");
}

#[test]
fn directories_that_are_none_or_not_ours_alone_are_refused() {
    let parent = directory();
    let missing = parent.path().join("a/b");
    let (kind, text) = refused(&missing);
    assert_eq!(kind, ErrorKind::InvalidConfig);
    assert!(text.contains("parent"), "{text}");
    assert!(!parent.path().join("a").exists());

    let file = parent.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert_eq!(refused(&file).0, ErrorKind::InvalidConfig);
    assert_eq!(refused(&file.join("x")).0, ErrorKind::InvalidConfig);
    assert_eq!(refused(Path::new("")).0, ErrorKind::InvalidConfig);

    let open_to_all = parent.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o770)).unwrap();
    let (kind, text) = refused(&open_to_all);
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.contains("chmod 700"), "{text}");
    assert!(entries(&open_to_all).is_empty());

    let real = parent.path().join("real");
    open(&real);
    let link = parent.path().join("link");
    symlink(&real, &link).unwrap();
    assert_eq!(refused(&link).0, ErrorKind::PermissionDenied);
    assert_eq!(refused(&link.join("")).0, ErrorKind::PermissionDenied);
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let parent = directory();
    let path = parent.path().join("theirs");
    open(&path);
    if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
        skip("only root can give a directory away");
        return;
    }
    let (kind, text) = refused(&path);
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.contains("65534"), "{text}");
}

#[test]
fn a_planted_link_is_not_followed_and_its_target_not_touched() {
    let dir = directory();
    let backend = open(dir.path());
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    for suffix in ["lock", "turn"] {
        let planted = dir.path().join(format!("{suffix}.{suffix}"));
        symlink(&target, &planted).unwrap();
        let acquire = lock(&backend, suffix).try_acquire_with(&support::options("shared"));
        let error = acquire.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("symbolic link"), "{error}");
        fs::remove_file(planted).unwrap();
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(lock(&backend, "x").try_acquire().wait().unwrap().is_some());
}

#[test]
fn what_is_no_lock_file_is_left_alone() {
    let dir = directory();
    let backend = open(dir.path());
    for (name, text) in [("short", "mine".to_owned()), ("long", "mine ".repeat(100))] {
        let file = dir.path().join(format!("{name}.lock"));
        fs::write(&file, &text).unwrap();
        for options in ["exclusive", "shared"] {
            let acquire = lock(&backend, name).try_acquire_with(&support::options(options));
            let error = acquire.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::create_dir(dir.path().join("z.lock")).unwrap();
    assert!(lock(&backend, "z").try_acquire().wait().is_err());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo.lock"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let error = lock(&backend, "fifo").try_acquire().wait().unwrap_err();
    assert!(error.to_string().contains("regular"), "{error}");
}

#[test]
fn a_directory_that_vanishes_and_returns_works_again() {
    let parent = directory();
    let path = parent.path().join("locks");
    let backend = open(&path);
    let guard = lock(&backend, "x").try_acquire().wait().unwrap().unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(
        guard.lost().wait_for(std::time::Duration::from_secs(20)),
        Some(lock_core::LossReason::Revoked)
    );
    let error = lock(&backend, "x").try_acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    open(&path);
    assert!(lock(&backend, "x").try_acquire().wait().unwrap().is_some());
    drop(guard);
}

#[test]
fn a_full_file_system_is_an_error_and_leaves_nothing_held() {
    let parent = directory();
    let Some(mount) = Tmpfs::mount(parent.path(), "size=16k,mode=0700") else {
        skip("mounting a file system needs root");
        return;
    };
    let fill = |left: &str| {
        let filler = mount.0.join("filler");
        let mut size = 0;
        while fs::write(&filler, vec![1; size + 4096]).is_ok() {
            size += 4096;
        }
        assert!(size > 0, "{left}");
        filler
    };
    let filler = fill("room before anything was written");
    let (kind, text) = refused(&mount.0);
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("full"), "{text}");
    assert_eq!(entries(&mount.0), std::slice::from_ref(&filler));
    fs::remove_file(&filler).unwrap();

    let backend = open(&mount.0);
    let filler = fill("room for a lock");
    let error = lock(&backend, "x").try_acquire().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let waiting = lock(&backend, "x").acquire().wait().unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::Unavailable, "{waiting}");
    fs::remove_file(&filler).unwrap();
    let other = open(&mount.0);
    let guard = lock(&other, "x").try_acquire().wait().unwrap();
    assert!(guard.is_some(), "a failed grant holds nothing");
}

#[test]
fn a_change_that_cannot_be_written_has_not_happened() {
    let parent = directory();
    let Some(mount) = Tmpfs::mount(parent.path(), "size=16k,mode=0700") else {
        skip("mounting a file system needs root");
        return;
    };
    let backend = open(&mount.0);
    // What the page has room for can always be written; this name has none in it.
    let key = "x".repeat(4000);
    let mut guard = lock(&backend, &key).try_acquire().wait().unwrap().unwrap();
    let filler = mount.0.join("filler");
    assert!(fs::write(&filler, vec![1; 1 << 20]).is_err());
    let error = block_on(guard.transfer_to(lock_core::OwnerId::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(support::holders(&backend, &key)[0].owner, None);
    let error = block_on(guard.downgrade()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let shared = lock(&backend, &key).try_acquire_with(&support::options("shared"));
    assert!(shared.wait().unwrap().is_none(), "exclusive still");
    assert_eq!(
        guard.release_blocking().unwrap(),
        lock_core::Released::Released
    );
}

#[test]
fn the_default_is_named_and_network_file_systems_are_refused_unless_allowed() {
    let config = FileConfig::default();
    assert_eq!(config.network_filesystem, NetworkFilesystem::Refuse);
    assert_eq!(config.directory, None);
    assert!(FileConfig::per_user_directory().is_absolute());
    let dir = directory();
    let mut config = FileConfig::in_directory(dir.path());
    config.network_filesystem = NetworkFilesystem::Allow;
    let backend = FileBackend::open(config).unwrap();
    let guard = block_on(lock(&backend, "x").acquire()).unwrap();
    drop(guard);
}

struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(parent: &Path, options: &str) -> Option<Self> {
        let path = parent.join("small");
        fs::create_dir(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&path)
            .output();
        mounted.ok()?.status.success().then_some(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}
