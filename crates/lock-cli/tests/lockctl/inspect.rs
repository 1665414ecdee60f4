//! `list`, `show`, `completions`.

use serde_json::Value;

use crate::support::{Outcome, Place};

#[test]
fn list_names_holders_and_counts_waiters() {
    let place = Place::new();
    let holder = place.holder("orders/42", &["--label", "import"]);
    let waiter = place.waiter("orders/42", &[], "true");
    let listed = Outcome::of(&mut place.lockctl(&["list"]));
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("KEY"), "{lines:?}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    let pid = holder.pid().as_raw_nonzero().to_string();
    assert_eq!(cells[..2], ["orders/42", "exclusive"]);
    assert!(cells.contains(&pid.as_str()), "{cells:?}");
    assert_eq!(cells.last(), Some(&"import"));

    let json = Outcome::of(&mut place.lockctl(&["list", "--json"]));
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[0]["key"], "orders/42");
    assert_eq!(json[0]["holders"][0]["pid"].to_string(), pid);
    assert_eq!(json[0]["waiters"].as_array().unwrap().len(), 1);
    waiter.kill();
}

#[test]
fn an_empty_place_has_an_empty_list() {
    let place = Place::new();
    let json = Outcome::of(&mut place.lockctl(&["list", "--json"]));
    assert_eq!(
        (json.code, json.stdout.trim()),
        (0, "[]"),
        "{}",
        json.stderr
    );
}

#[test]
fn show_tells_all_about_a_key() {
    let place = Place::new();
    let holder = place.holder("k", &["--label", "\u{1b}[2Jreport"]);
    let shown = place.show("k");
    let party = &shown["holders"][0];
    assert_eq!(party["mode"], "exclusive");
    assert_eq!(party["label"], "\u{1b}[2Jreport");
    assert!(party["fencing_number"].as_u64().is_some(), "{shown}");
    assert!(party["since"].as_str().unwrap().ends_with('Z'), "{shown}");
    let text = Outcome::of(&mut place.lockctl(&["show", "k"])).stdout;
    let who = format!("held by pid {} ", holder.pid().as_raw_nonzero());
    assert!(text.contains(&who), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "a label drives the terminal: {text:?}"
    );
    holder.go();
    assert_eq!(holder.outcome().code, 0);
    assert_eq!(place.show("k")["holders"].as_array().unwrap().len(), 0);
    let free = Outcome::of(&mut place.lockctl(&["show", "k"])).stdout;
    assert!(free.contains("nobody holds it"), "{free}");
}

#[test]
fn a_namespace_is_a_world_of_its_own() {
    let place = Place::new();
    let _holder = place.holder("k", &["--namespace", "shop"]);
    assert_eq!(place.outcome("k", &["--no-wait"], "true").code, 0);
    let list = |args: &[&str]| {
        let args = [&["list", "--json"], args].concat();
        let json = Outcome::of(&mut place.lockctl(&args)).stdout;
        serde_json::from_str::<Value>(&json).unwrap()
    };
    assert_eq!(list(&["--namespace", "shop"])[0]["namespace"], "shop");
    assert_eq!(list(&[]).as_array().unwrap().len(), 0);
}

#[test]
fn completions_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Outcome::of(&mut place.lockctl(&["completions", shell]));
        assert_eq!(script.code, 0);
        assert!(
            script.stdout.contains("no-wait"),
            "{shell}: {}",
            script.stdout
        );
    }
}
