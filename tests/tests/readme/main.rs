//! What the README says, acted out: its commands, its files, its two shells.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shells;
mod text;

use std::path::Path;
use std::process::Command;

use lock_manager::{LockManager, Scope};
use shells::Shells;
use text::{blocks, blocks_of};

#[test]
fn the_first_command_runs_as_it_is_written() {
    let commands = blocks("sh");
    let command = commands[0].lines().next().unwrap();
    assert!(command.starts_with("cargo run --locked "), "{command}");
    let place = tempfile::tempdir().unwrap();
    let script = format!("cargo() {{ \"$CARGO\" \"$@\"; }}; {command}");
    let ran = Command::new("sh")
        .args(["-c", &script])
        .current_dir(text::ROOT)
        .env("CARGO", text::cargo())
        .env("XDG_RUNTIME_DIR", place.path())
        .env_remove("LOCKCTL_CONFIG")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command}: {told}");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), "alone at work\n");
    assert!(place.path().join("lock/nightly-import.lock").exists());
}

/// Builds a manager from a configuration as it is written, but for the directory.
fn manager(place: &Path, text: &str) -> LockManager {
    let written = "\"/run/shop\"";
    assert!(text.contains(written), "{text}");
    let directory = format!("{:?}", place.join("shop"));
    let path = place.join("locks.toml");
    std::fs::write(&path, text.replace(written, &directory)).unwrap();
    LockManager::from_file(&path).unwrap()
}

#[test]
fn the_configuration_yields_what_the_table_says() {
    let place = tempfile::tempdir().unwrap();
    let mut texts = blocks("toml").into_iter();
    let text = texts.find(|text| text.contains("pool =")).unwrap();
    let locks = manager(place.path(), &text);
    assert_eq!(locks.config().need().scope(), Scope::Host);
    let limit = locks.config().acquire.wait_limit;
    assert_eq!(limit.unwrap().as_secs(), 30);
    assert_eq!(locks.default_backend(), "file");
    let guard = locks.lock("orders/import").unwrap().acquire().wait();
    assert_eq!(guard.unwrap().key().namespace(), "shop");
}

#[test]
fn the_configurations_of_the_other_documents_are_accepted() {
    let place = tempfile::tempdir().unwrap();
    let celery = &blocks_of("docs/GUARANTEES.md", "toml")[0];
    assert_eq!(manager(place.path(), celery).default_backend(), "file");

    let routed = &blocks_of("crates/lock-manager/README.md", "toml")[0];
    let locks = manager(place.path(), routed);
    assert_eq!(locks.default_backend(), "threading");
    let backend = |name: &str| locks.lock(name).unwrap().backend().capabilities().name;
    assert_eq!(backend("schema_orders"), "file");
    assert_eq!(backend("orders"), "threading");
}

#[test]
fn the_dependency_is_a_crate_of_this_checkout() {
    let text = blocks("toml")
        .into_iter()
        .find(|text| text.contains("[dependencies]"));
    let manifest: toml::Table = text.unwrap().parse().unwrap();
    for (name, dependency) in manifest["dependencies"].as_table().unwrap() {
        let path = dependency["path"].as_str().unwrap();
        let inside = path.strip_prefix("lock/").unwrap();
        let manifest = Path::new(text::ROOT).join(inside).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str().unwrap(), name);
    }
}

#[test]
fn the_commands_of_the_third_shell_exist() {
    let shells = Shells::open();
    let commands = blocks("sh");
    let lines = commands[1].lines();
    assert_eq!(lines.clone().count(), 3, "{:?}", commands[1]);
    for line in lines {
        let words = line.split('#').next().unwrap().split_whitespace();
        let (program, args) = (words.clone().next(), words.skip(1));
        assert_eq!(program, Some("lockctl"));
        let ran = shells.lockctl().args(args).output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
    }
}

#[test]
fn the_second_shell_waits_until_the_first_ends() {
    let shells = Shells::open();
    let mut first = shells.run("first");
    first.is_in();
    let mut second = shells.waiting("second");
    assert_eq!(shells.try_now(), Some(75));
    assert_eq!(shells.history(), ["first in"]);
    assert!(first.end().success());
    second.is_in();
    assert_eq!(shells.history(), ["first in", "first out", "second in"]);
    assert!(second.end().success());
    assert_eq!(shells.try_now(), Some(0));
}

#[test]
fn the_second_shell_goes_on_when_the_first_is_killed() {
    let shells = Shells::open();
    let mut first = shells.run("first");
    first.is_in();
    let mut second = shells.waiting("second");
    assert_eq!(shells.history(), ["first in"]);
    first.kill();
    second.is_in();
    // The command of the killed one has ended without leaving its work in order.
    assert_eq!(shells.history(), ["first in", "second in"]);
    assert!(second.end().success());
}
