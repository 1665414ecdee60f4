//! One program, two configurations: in process, and over the processes of one host.

#![cfg(all(unix, feature = "file"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use lock_manager::{Config, ErrorKind, FileConfig, LockManager, Pool};

/// Set for a second process of this test binary: where its configuration is.
const CONFIG: &str = "TEST_CONFIG_OF_THE_SECOND_PROCESS";

/// What the program under test does, whatever the configuration says.
fn contended(manager: &LockManager) -> bool {
    let lock = manager.lock("migration").unwrap();
    lock.try_acquire().wait().unwrap().is_none()
}

/// Writes a configuration for `pool` whose files are in the same directory.
fn write(directory: &Path, pool: &str) -> std::path::PathBuf {
    let path = directory.join("locks.toml");
    let locks = directory.join("locks");
    let text = format!("{pool}\n[file]\ndirectory = {locks:?}");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_same_code_excludes_as_far_as_the_pool_says() {
    if let Some(config) = std::env::var_os(CONFIG) {
        let manager = LockManager::from_file(config).unwrap();
        let status = i32::from(contended(&manager));
        std::process::exit(40 + status);
    }
    let directory = tempfile::tempdir().unwrap();
    for (pool, backend, excludes_processes) in [
        ("pool = \"solo\"", "threading", false),
        ("pool = \"prefork\"\nhosts = 1", "file", true),
        ("pool = \"threads\"\nworker_processes = 2", "file", true),
        ("", "file", true),
    ] {
        let path = write(directory.path(), pool);
        let manager = LockManager::from_file(&path).unwrap();
        assert_eq!(manager.default_backend(), backend, "{pool}");
        let guard = manager.lock("migration").unwrap().acquire().wait().unwrap();
        assert!(contended(&manager), "in one process always");
        let second = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_same_code_excludes_as_far_as_the_pool_says"])
            .env(CONFIG, &path)
            .status()
            .unwrap();
        let contended_there = second.code() == Some(41);
        assert_eq!(contended_there, excludes_processes, "{pool}: {second}");
        guard.release_blocking().unwrap();
        assert!(
            manager
                .blocking()
                .shutdown(std::time::Duration::ZERO)
                .is_clean()
        );
    }
}

#[test]
fn a_manager_closes_the_backend_it_opened_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.pool = Some(Pool::Prefork);
    config.hosts = std::num::NonZeroU32::new(1);
    config.file = Some(FileConfig::in_directory(directory.path().join("locks")));
    let (ending, staying) = (
        LockManager::new(config.clone()).unwrap(),
        LockManager::new(config).unwrap(),
    );
    let guard = ending.lock("a").unwrap().acquire().wait().unwrap();
    assert!(staying.blocking().is_locked("a").unwrap());
    drop(guard);
    assert!(
        ending
            .blocking()
            .shutdown(std::time::Duration::from_secs(30))
            .is_clean()
    );
    assert_eq!(ending.lock("a").unwrap_err().kind(), ErrorKind::Closed);
    drop(staying.lock("a").unwrap().acquire().wait().unwrap());
}

#[test]
fn a_bad_section_is_told_like_any_other_setting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks.toml");
    let told = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error = Config::from_file(&path).unwrap_err();
        let start = format!("in {}, ", path.display());
        error.message().strip_prefix(&start).unwrap().to_owned()
    };
    let unknown = told("[file]\ndirectry = \"/tmp\"");
    let start = "`file.directry`: there is no setting `directry` (did you mean `directory`?)";
    assert!(unknown.starts_with(start), "{unknown}");
    let duration = told("[file]\nbackup_poll = \"often\"");
    let start = "`file.backup_poll`: found `often`, write a duration such as";
    assert!(duration.starts_with(start), "{duration}");
}

#[test]
fn a_directory_that_cannot_be_used_is_told_with_its_setting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks.toml");
    let missing = directory.path().join("missing");
    let locks = missing.join("locks");
    std::fs::write(
        &path,
        format!("backend = \"file\"\n[file]\ndirectory = {locks:?}"),
    )
    .unwrap();
    let error = LockManager::from_file(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let start = format!(
        "in {}, `file.directory`: the parent of {} does not exist",
        path.display(),
        locks.display()
    );
    assert!(error.message().starts_with(&start), "{error}");

    let mut config = Config::default();
    config.backend = Some("file".to_owned());
    config.file = Some(FileConfig::in_directory(&locks));
    let error = LockManager::new(config).unwrap_err();
    assert!(error.message().starts_with("`file.directory`: "), "{error}");
}
