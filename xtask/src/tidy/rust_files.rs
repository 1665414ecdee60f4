//! Rules about Rust sources.

use super::rust_code::{code_only, has_word};
use super::tree::{Tree, Violation, numbered};

/// Longer files hold more than one concept.
const MOST_LINES: usize = 500;
/// From here on a file is worth a look, not yet a violation.
const MANY_LINES: usize = 350;

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts_with("rs") {
        let code = code_only(text);
        violations.extend(is_short(path, text));
        violations.extend(no_tabs(path, text));
        violations.extend(nothing_unfinished(path, &code));
        violations.extend(says_why_ignored(path, &code));
        violations.extend(says_why_it_sleeps(path, text, &code));
        violations.extend(measures_by_the_one_clock(path, &code));
    }
    violations
}

/// Files that may soon be too long.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    let lengths = tree
        .texts_with("rs")
        .map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, lines)| (MANY_LINES + 1..=MOST_LINES).contains(lines))
        .map(|(path, lines)| format!("{path} has {lines} lines; is it still one concept?"))
        .collect()
}

fn is_short(path: &str, text: &str) -> Option<Violation> {
    let lines = text.lines().count();
    (lines > MOST_LINES).then(|| {
        let what = format!("{lines} lines, more than {MOST_LINES}");
        Violation::new(path, lines, what, "one file per concept")
    })
}

fn no_tabs(path: &str, text: &str) -> Vec<Violation> {
    let tabs = numbered(text).filter(|(_, line)| line.contains('\t'));
    tabs.map(|(line, _)| Violation::new(path, line, "a tab", "spaces, or `\\t` in a string"))
        .collect()
}

fn nothing_unfinished(path: &str, code: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in numbered(code) {
        for (found, instead) in [
            (
                "todo!",
                "the code, or an error that says what is unsupported",
            ),
            (
                "unimplemented!",
                "the code, or an error that says what is unsupported",
            ),
            ("dbg!", "a `tracing` event, or nothing"),
        ] {
            if has_word(line, found) {
                violations.push(Violation::new(path, number, format!("`{found}`"), instead));
            }
        }
    }
    violations
}

fn says_why_ignored(path: &str, code: &str) -> Vec<Violation> {
    let ignored = |line: &str| {
        let packed: String = line.split_whitespace().collect();
        packed.contains("#[ignore]") || packed.contains(",ignore)]")
    };
    numbered(code)
        .filter(|(_, line)| ignored(line))
        .map(|(number, _)| {
            let instead = "`#[ignore = \"why, and how to run it\"]`";
            Violation::new(path, number, "a test ignored without a reason", instead)
        })
        .collect()
}

/// Where leases and deadlines are measured, and the monotonic clock of the standard library, which
/// stands still while the machine is suspended, would miss their end.
const LEASED: [&str; 3] = [
    "crates/lock-etcd/src/",
    "crates/lock-redis/src/",
    "crates/lock-sqlite/src/",
];

fn measures_by_the_one_clock(path: &str, code: &str) -> Vec<Violation> {
    if !LEASED.iter().any(|crate_| path.starts_with(crate_)) {
        return Vec::new();
    }
    let of_std = |line: &str| {
        let imports = line.trim_start().starts_with("use std::time::");
        line.contains("std::time::Instant") || imports && has_word(line, "Instant")
    };
    numbered(code)
        .filter(|(_, line)| of_std(line))
        .map(|(number, _)| {
            let instead = "`lock_core::clock::Instant`, which runs through suspend";
            Violation::new(path, number, "a clock that stops in suspend", instead)
        })
        .collect()
}

/// A sleep that orders events makes a test slow when it passes and wrong when it fails.
fn says_why_it_sleeps(path: &str, text: &str, code: &str) -> Vec<Violation> {
    let sources: Vec<&str> = text.lines().collect();
    let explained = |number: usize| {
        let previous = number.checked_sub(2).map(|index| sources[index]);
        [Some(sources[number - 1]), previous]
            .into_iter()
            .flatten()
            .any(|line| {
                line.split_once("//")
                    .is_some_and(|(_, said)| said.contains("sleep:"))
            })
    };
    numbered(code)
        .skip(lines_before_tests(path, code))
        .filter(|(number, line)| sleeps(line) && !explained(*number))
        .map(|(number, _)| {
            let instead = "a barrier, a paused clock or polling; else `// sleep: why no other way`";
            Violation::new(path, number, "a test that sleeps", instead)
        })
        .collect()
}

/// A call of a function; a method is somebody's clock, and `fn sleep(` is that clock itself.
fn sleeps(code: &str) -> bool {
    has_word(code, "sleep(") && !code.contains(".sleep(") && !code.contains("fn sleep(")
}

/// How many lines of a file are not tests: none in a test file, all in one without a test module.
fn lines_before_tests(path: &str, code: &str) -> usize {
    let is_test_file = path
        .split('/')
        .any(|part| matches!(part, "tests" | "tests.rs"))
        || path.starts_with("crates/lock-testkit/src/");
    if is_test_file {
        return 0;
    }
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let module = lines.windows(2).position(|pair| {
        pair[0].starts_with("#[cfg(") && pair[0].contains("test") && pair[1].starts_with("mod ")
    });
    module.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::from([(path, text)]))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn long_files_are_noted_then_refused() {
        let file = |lines| "x\n".repeat(lines);
        let (fine, long, too_long) = (file(350), file(351), file(501));
        let tree = Tree::from([("a.rs", &*fine), ("b.rs", &*long), ("c.rs", &*too_long)]);
        assert_eq!(
            notes(&tree),
            ["b.rs has 351 lines; is it still one concept?"]
        );
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].path, found[0].line), ("c.rs", 501));
    }

    #[test]
    fn unfinished_code_is_found_but_not_prose_about_it() {
        assert_eq!(found("a.rs", "fn f() {\n    todo!()\n}").len(), 1);
        assert_eq!(found("a.rs", "x = dbg!(y); unimplemented!()").len(), 2);
        assert_eq!(
            found("a.rs", "// todo!\nlet x = \"dbg!\"; my_dbg!(x);"),
            [""; 0]
        );
    }

    #[test]
    fn ignoring_a_test_needs_a_reason() {
        assert_eq!(found("a.rs", "#[ignore]").len(), 1);
        assert_eq!(found("a.rs", "#[cfg_attr(miri, ignore)]").len(), 1);
        assert_eq!(found("a.rs", "#[ignore = \"needs a server\"]"), [""; 0]);
    }

    #[test]
    fn a_tab_is_found() {
        assert_eq!(
            found("a.rs", "fn f() {\n\tg();\n}")[0],
            "a.rs:2: a tab — spaces, or `\\t` in a string"
        );
    }

    #[test]
    fn a_sleep_in_a_test_needs_a_comment() {
        let test = "tests/a.rs";
        assert_eq!(found(test, "std::thread::sleep(x);").len(), 1);
        assert_eq!(found(test, "tokio::time::sleep(x).await;").len(), 1);
        assert_eq!(found(test, "let s = \"sleep:\"; sleep(x);").len(), 1);
        assert_eq!(
            found(test, "sleep(x); // sleep: the server owns this time"),
            [""; 0]
        );
        assert_eq!(
            found(test, "// sleep: the server owns this time\nsleep(x);"),
            [""; 0]
        );
        assert_eq!(found(test, "clock.sleep(x);\nfn sleep(x: u8) {}"), [""; 0]);
    }

    #[test]
    fn leases_are_measured_through_suspend() {
        let lease = "crates/lock-etcd/src/session.rs";
        for used in [
            "use std::time::{Duration, Instant};",
            "let now = std::time::Instant::now();",
        ] {
            assert_eq!(found(lease, used).len(), 1);
            assert_eq!(found("xtask/src/command.rs", used), [""; 0]);
        }
        assert_eq!(found(lease, "use lock_core::clock::Instant;"), [""; 0]);
        assert_eq!(found(lease, "use std::time::Duration;"), [""; 0]);
    }

    #[test]
    fn a_sleep_outside_tests_is_no_concern_of_this_rule() {
        assert_eq!(found("crates/lock-file/src/lib.rs", "sleep(x);"), [""; 0]);
        let module = "fn f() { sleep(x) }\n#[cfg(test)]\nmod tests {\n    sleep(x);\n}";
        let found = found("crates/lock-file/src/lib.rs", module);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("crates/lock-file/src/lib.rs:4"),
            "{found:?}"
        );
    }
}
