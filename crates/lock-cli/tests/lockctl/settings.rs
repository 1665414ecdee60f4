//! Configurations: good ones, bad ones, none at all.

use std::fs;

use serde_json::Value;

use crate::support::{Outcome, Place};

fn check_with(place: &Place, config: &str) -> Outcome {
    fs::write(place.file("locks.toml"), config).unwrap();
    Outcome::of(&mut place.lockctl(&["check"]))
}

#[test]
fn check_tells_the_backend_and_tries_it() {
    let place = Place::new();
    let text = Outcome::of(&mut place.lockctl(&["check"]));
    assert_eq!(text.code, 0, "{}", text.stderr);
    let locks = place.file("locks");
    for part in ["file", "host", locks.to_str().unwrap()] {
        assert!(text.stdout.contains(part), "no {part} in {}", text.stdout);
    }
    let check = || {
        let json = Outcome::of(&mut place.lockctl(&["check", "--json"]));
        serde_json::from_str::<Value>(&json.stdout).unwrap()
    };
    let (first, second) = (check(), check());
    assert_eq!(first["backend"], "file");
    let token = |report: &Value| report["probe"]["fencing_number"].as_u64().unwrap();
    assert!(token(&second) > token(&first), "{first} {second}");
    assert!(first["probe"]["acquire_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn check_tells_how_far_the_locks_must_reach() {
    let place = Place::new();
    let locks = place.file("locks");
    let config = format!("pool = \"prefork\"\nhosts = 1\n[file]\ndirectory = {locks:?}\n");
    let text = check_with(&place, &config);
    let needed = |line: &&str| line.starts_with("needed ");
    let needed = text.stdout.lines().find(needed).unwrap_or_default();
    assert!(needed.contains("host: pool `prefork`"), "{}", text.stdout);
    let json = Outcome::of(&mut place.lockctl(&["check", "--json"]));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["needed"]["scope"], "host");
    assert_eq!(report["scope"], "host");
}

#[test]
fn a_directory_that_cannot_be_used_is_told_with_its_setting() {
    let place = Place::new();
    let locks = place.file("missing").join("locks");
    let config = format!("backend = \"file\"\n[file]\ndirectory = {locks:?}\n");
    let refused = check_with(&place, &config);
    assert_eq!(refused.code, 78, "{}", refused.stderr);
    for part in ["locks.toml, `file.directory`", "parent"] {
        assert!(
            refused.stderr.contains(part),
            "no {part} in {}",
            refused.stderr
        );
    }
}

#[test]
fn the_help_tells_what_contended_and_lost_end_with() {
    let place = Place::new();
    let help = Outcome::of(&mut place.lockctl(&["run", "--help"])).stdout;
    for code in ["75  contended", "76  lost"] {
        assert!(help.contains(code), "no {code} in {help}");
    }
}

#[test]
fn a_wrong_setting_is_told_with_its_file_and_key() {
    let place = Place::new();
    let wrong = check_with(&place, "backend = \"file\"\n[file]\ndirectori = \"/tmp\"\n");
    assert_eq!(wrong.code, 78, "{}", wrong.stderr);
    for part in ["locks.toml", "directori", "directory"] {
        assert!(wrong.stderr.contains(part), "no {part} in {}", wrong.stderr);
    }
    let unknown = check_with(&place, "backend = \"fiel\"\n");
    assert_eq!(unknown.code, 78);
    for part in ["locks.toml", "backend", "`file`"] {
        assert!(
            unknown.stderr.contains(part),
            "no {part} in {}",
            unknown.stderr
        );
    }
    fs::remove_file(place.file("locks.toml")).unwrap();
    let missing = Outcome::of(&mut place.lockctl(&["list"]));
    assert_eq!(missing.code, 78);
    assert!(missing.stderr.contains("locks.toml"), "{}", missing.stderr);
}

#[test]
fn a_backend_of_one_process_is_refused_with_what_to_write() {
    let place = Place::new();
    fs::write(place.file("locks.toml"), "backend = \"threading\"\n").unwrap();
    let refused = place.outcome("k", &[], "touch ran");
    assert_eq!(refused.code, 78);
    for part in ["threading", "exclude nobody", "backend = \"file\""] {
        assert!(
            refused.stderr.contains(part),
            "no {part} in {}",
            refused.stderr
        );
    }
    assert!(!place.file("ran").exists());
}

#[test]
fn without_a_configuration_the_locks_are_the_user_s() {
    let place = Place::new();
    let mut show = place.lockctl(&["check", "--json"]);
    show.env_remove("LOCKCTL_CONFIG");
    show.env("XDG_RUNTIME_DIR", place.file("."));
    let shown = Outcome::of(&mut show);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let report: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(report["backend"], "file");
    assert!(place.file("lock").is_dir(), "{report}");
}

#[test]
fn what_the_backend_cannot_do_is_a_configuration_error() {
    let place = Place::new();
    let refused = place.outcome("k", &["--ttl", "10s"], "true");
    assert_eq!(refused.code, 78, "{}", refused.stderr);
    assert!(refused.stderr.contains("file"), "{}", refused.stderr);
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let place = Place::new();
    let usage = |args: &[&str]| Outcome::of(&mut place.lockctl(args)).code;
    assert_eq!(usage(&["run", "k"]), 64);
    assert_eq!(usage(&["run", "", "--", "true"]), 64);
    assert_eq!(usage(&["run", "k", "--permits", "0", "--", "true"]), 64);
    assert_eq!(
        usage(&["run", "k", "--no-wait", "--wait", "1s", "--", "true"]),
        64
    );
    assert_eq!(usage(&["--help"]), 0);
}
