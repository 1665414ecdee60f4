//! Rules about packages: all are members, all inherit what the workspace states, and those in
//! `crates/` have the rooms that a reader expects.

use toml::Value;

use super::manifest::Manifest;
use super::tree::{Tree, Violation};
use crate::metadata::backend_name;

const INHERITED: &[&str] = &["version", "edition", "license", "rust-version"];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let (packages, mut violations) = Manifest::packages(tree);
    for package in packages
        .iter()
        .filter(|package| !is_excluded(tree, package.folder()))
    {
        violations.extend(is_member(tree, package));
        violations.extend(inherits(package));
        if package.folder().starts_with("crates/") {
            violations.extend(shows_its_readme(tree, package));
            violations.extend(is_conformance_tested(tree, package));
        }
    }
    violations
}

fn is_member(tree: &Tree, package: &Manifest<'_>) -> Option<Violation> {
    let folder = package.folder();
    let listed = workspace_list(tree, "members")
        .iter()
        .any(|pattern| covers(pattern, folder));
    (!listed).then(|| {
        Violation::new(
            "Cargo.toml",
            1,
            format!("`{folder}` is no member of the workspace"),
            format!("`\"{folder}\"` in `members`"),
        )
    })
}

fn is_excluded(tree: &Tree, folder: &str) -> bool {
    workspace_list(tree, "exclude")
        .iter()
        .any(|pattern| covers(pattern, folder))
}

fn workspace_list(tree: &Tree, key: &str) -> Vec<String> {
    let root = Manifest::parse("Cargo.toml", tree.text("Cargo.toml").unwrap_or_default());
    let Ok(root) = root else { return Vec::new() };
    let list = root.get(&["workspace", key]).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Whether `pattern`, in which `*` stands for one folder, means `folder`.
fn covers(pattern: &str, folder: &str) -> bool {
    let mut folders = folder.split('/');
    pattern
        .split('/')
        .all(|part| folders.next().is_some_and(|f| part == "*" || part == f))
        && folders.next().is_none()
}

/// Cargo does not warn about a member without `[lints]`: it just checks less.
fn inherits(package: &Manifest<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !package.inherits(&["lints"]) {
        violations.push(Violation::new(
            package.path,
            package.line_of("lints"),
            "the lints of the workspace are not inherited",
            "`[lints]` with `workspace = true`",
        ));
    }
    for field in INHERITED
        .iter()
        .filter(|field| !package.inherits(&["package", field]))
    {
        violations.push(Violation::new(
            package.path,
            package.line_of(field),
            format!("`{field}` is not that of the workspace"),
            format!("`{field}.workspace = true`"),
        ));
    }
    violations
}

/// A README that is part of the crate's docs is compiled, so its examples cannot go stale.
fn shows_its_readme(tree: &Tree, package: &Manifest<'_>) -> Option<Violation> {
    const INCLUDE: &str = r#"#![doc = include_str!("../README.md")]"#;
    let folder = package.folder();
    if tree.text(&format!("{folder}/README.md")).is_none() {
        let path = format!("{folder}/README.md");
        return Some(Violation::new(
            &path,
            1,
            "missing",
            "what the crate is for, and an example",
        ));
    }
    let roots = ["lib.rs", "main.rs"].map(|file| format!("{folder}/src/{file}"));
    let included = roots
        .iter()
        .filter_map(|root| tree.text(root))
        .any(|root| root.contains(INCLUDE));
    (!included).then(|| {
        let root = roots
            .iter()
            .find(|root| tree.contains(root))
            .unwrap_or(&roots[0]);
        Violation::new(
            root,
            1,
            "the crate docs are not the README",
            format!("`{INCLUDE}`"),
        )
    })
}

/// A backend that nobody put through the suite must not look like one that passed.
fn is_conformance_tested(tree: &Tree, package: &Manifest<'_>) -> Option<Violation> {
    backend_name(package.name())?;
    let tests = package.get(&["test"]).and_then(Value::as_array);
    let has_own_harness = tests.into_iter().flatten().any(|test| {
        test.get("name").and_then(Value::as_str) == Some("conformance")
            && test.get("harness").and_then(Value::as_bool) == Some(false)
    });
    let path = format!("{}/tests/conformance.rs", package.folder());
    (!has_own_harness || !tree.contains(&path)).then(|| {
        Violation::new(
            package.path,
            1,
            "this backend does not run the conformance suite",
            "`[[test]]` with `name = \"conformance\"` and `harness = false`, and \
             tests/conformance.rs (no backend? name it in NOT_BACKENDS of xtask)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) = (
        "Cargo.toml",
        "[workspace]\nmembers = [\"crates/*\"]\nexclude = [\"fuzz\"]",
    );
    const INHERITS: &str = "version.workspace = true\nedition.workspace = true\n\
        license.workspace = true\nrust-version.workspace = true\n[lints]\nworkspace = true\n";
    const LIB: (&str, &str) = (
        "crates/lock-file/src/lib.rs",
        "#![doc = include_str!(\"../README.md\")]\n",
    );
    const README: (&str, &str) = ("crates/lock-file/README.md", "# lock-file\n");
    const SUITE: (&str, &str) = ("crates/lock-file/tests/conformance.rs", "");
    const TEST: &str = "[[test]]\nname = \"conformance\"\nharness = false\n";

    fn backend(rest: &str) -> String {
        format!("[package]\nname = \"lock-file\"\n{rest}")
    }

    fn found<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        check(&Tree::from(files))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_complete_backend_is_fine() {
        let manifest = backend(&format!("{INHERITS}{TEST}"));
        let files = [
            ROOT,
            LIB,
            README,
            SUITE,
            ("crates/lock-file/Cargo.toml", &manifest),
        ];
        assert_eq!(found(files), [""; 0]);
    }

    #[test]
    fn everything_that_is_not_inherited_is_named() {
        let manifest = backend(&format!("version = \"1.0.0\"\n{TEST}"));
        let found = found([
            ROOT,
            LIB,
            README,
            SUITE,
            ("crates/lock-file/Cargo.toml", &manifest),
        ]);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].contains("`[lints]` with `workspace = true`"));
        assert!(
            found[1].starts_with("crates/lock-file/Cargo.toml:3: `version`"),
            "{found:?}"
        );
    }

    #[test]
    fn a_package_outside_the_workspace_is_named_unless_excluded() {
        let manifest = format!("[package]\nname = \"tool\"\n{INHERITS}");
        let found = found([
            ROOT,
            ("tools/a/Cargo.toml", &manifest),
            ("fuzz/Cargo.toml", ""),
        ]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`\"tools/a\"` in `members`"), "{found:?}");
    }

    #[test]
    fn a_readme_must_exist_and_be_the_crate_docs() {
        let manifest = backend(&format!("{INHERITS}{TEST}"));
        let manifest = ("crates/lock-file/Cargo.toml", manifest.as_str());
        let missing = found([ROOT, LIB, SUITE, manifest]);
        assert!(
            missing[0].starts_with("crates/lock-file/README.md:1: missing"),
            "{missing:?}"
        );

        let other = ("crates/lock-file/src/lib.rs", "//! Other docs.");
        let not_included = found([ROOT, other, README, SUITE, manifest]);
        assert!(
            not_included[0].starts_with("crates/lock-file/src/lib.rs:1"),
            "{not_included:?}"
        );
    }

    #[test]
    fn a_backend_without_the_suite_is_named() {
        let manifest = backend(INHERITS);
        let found = found([
            ROOT,
            LIB,
            README,
            SUITE,
            ("crates/lock-file/Cargo.toml", &manifest),
        ]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("does not run the conformance suite"),
            "{found:?}"
        );
    }
}
