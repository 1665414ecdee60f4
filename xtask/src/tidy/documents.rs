//! Rules about the change log and the decision records.

use std::collections::BTreeMap;

use toml::Value;

use super::manifest::Manifest;
use super::tree::{Tree, Violation, numbered};

const DECISIONS: &str = "docs/decisions/";
const DECISION_HEADINGS: &[&str] = &["## Question", "## Options", "## Choice"];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations: Vec<Violation> = change_log(tree).into_iter().collect();
    violations.extend(decisions(tree));
    violations
}

fn change_log(tree: &Tree) -> Option<Violation> {
    let root = Manifest::parse("Cargo.toml", tree.text("Cargo.toml")?).ok()?;
    let version = root
        .get(&["workspace", "package", "version"])
        .and_then(Value::as_str)?;
    let mut headings = numbered(tree.text("CHANGELOG.md").unwrap_or_default())
        .filter(|(_, line)| line.starts_with("## "));
    let is_current = |line: &str| {
        line.split([' ', '[', ']'])
            .any(|word| word == version || word == "Unreleased")
    };
    (!headings.any(|(_, line)| is_current(line))).then(|| {
        let what = format!("no heading for version {version}");
        Violation::new(
            "CHANGELOG.md",
            1,
            what,
            format!("`## Unreleased` or `## {version}`"),
        )
    })
}

fn decisions(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut numbers: BTreeMap<usize, &str> = BTreeMap::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.starts_with(DECISIONS)) {
        violations.extend(missing_headings(path, text));
        let Some(number) = decision_number(&path[DECISIONS.len()..]) else {
            let instead = "`NNNN-words-with-hyphens.md`";
            violations.push(Violation::new(
                path,
                1,
                "a decision with another name",
                instead,
            ));
            continue;
        };
        if let Some(other) = numbers.insert(number, path) {
            let what = format!("the number of {other}");
            violations.push(Violation::new(path, 1, what, "the next free number"));
        }
    }
    violations
}

fn missing_headings(path: &str, text: &str) -> Vec<Violation> {
    let missing = DECISION_HEADINGS
        .iter()
        .filter(|h| !text.lines().any(|line| line == **h));
    missing
        .map(|heading| {
            Violation::new(
                path,
                1,
                "a part of the decision is missing",
                format!("`{heading}`"),
            )
        })
        .collect()
}

/// `0003-kernel-locks.md` → 3.
fn decision_number(file: &str) -> Option<usize> {
    let (digits, words) = file.strip_suffix(".md")?.split_once('-')?;
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let is_number = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_digit());
    (is_number && words.split('-').all(is_word))
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) = ("Cargo.toml", "[workspace.package]\nversion = \"0.1.0\"");
    const COMPLETE: &str = "# Title\n\n## Question\n\n## Options\n\n## Choice\n";

    fn found<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        check(&Tree::from(files))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_change_log_names_the_current_version_or_unreleased() {
        for heading in [
            "## Unreleased",
            "## [Unreleased]",
            "## 0.1.0",
            "## [0.1.0] 2030-01-01",
        ] {
            assert_eq!(found([ROOT, ("CHANGELOG.md", heading)]), [""; 0]);
        }
        for text in ["", "0.1.0", "## 10.1.0", "## 0.1.0-alpha"] {
            assert_eq!(found([ROOT, ("CHANGELOG.md", text)]).len(), 1, "{text}");
        }
        assert_eq!(found([ROOT]).len(), 1);
    }

    #[test]
    fn complete_decisions_are_fine() {
        let files = [
            ("docs/decisions/0001-a.md", COMPLETE),
            ("docs/decisions/0004-b-2.md", COMPLETE),
        ];
        assert_eq!(found(files), [""; 0]);
    }

    #[test]
    fn a_number_taken_twice_is_found() {
        let files = [
            ("docs/decisions/0001-a.md", COMPLETE),
            ("docs/decisions/0001-b.md", COMPLETE),
        ];
        assert_eq!(found(files).len(), 1);
    }

    #[test]
    fn other_names_and_missing_parts_are_found() {
        assert_eq!(found([("docs/decisions/1-a.md", COMPLETE)]).len(), 1);
        assert_eq!(
            found([("docs/decisions/0001-Not_Kebab.md", COMPLETE)]).len(),
            1
        );
        let found = found([("docs/decisions/0001-a.md", "## Question\n## Options\n")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("`## Choice`"), "{found:?}");
    }
}
