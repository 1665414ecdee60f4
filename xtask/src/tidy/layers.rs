//! Which crate may depend on which: `lock-cli → lock-manager → backends → lock-core`, and
//! `lock-testkit → lock-core`.

use super::manifest::{Dependency, Manifest};
use super::tree::{Tree, Violation};

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let (packages, _) = Manifest::packages(tree);
    let crates = packages
        .iter()
        .filter(|package| package.folder().starts_with("crates/"));
    crates.flat_map(against_the_direction).collect()
}

fn against_the_direction(package: &Manifest<'_>) -> Vec<Violation> {
    let name = package.name();
    let ours = package
        .dependencies()
        .into_iter()
        .filter(|d| d.name.starts_with("lock-"));
    ours.filter(|dependency| !may_depend(name, dependency))
        .map(|Dependency { name: on, .. }| {
            Violation::new(
                package.path,
                package.line_of(&on),
                format!("`{name}` depends on `{on}`"),
                format!("{}; compose in a crate above", allowed(name)),
            )
        })
        .collect()
}

fn may_depend(package: &str, on: &Dependency) -> bool {
    let for_tests = on.for_tests_only && on.name == "lock-testkit";
    match package {
        "lock-core" => false,
        // Its own tests plant faults in a backend that works.
        "lock-testkit" => {
            on.name == "lock-core" || on.for_tests_only && on.name == "lock-threading"
        }
        "lock-manager" => for_tests || !matches!(&*on.name, "lock-cli" | "lock-testkit"),
        "lock-cli" => for_tests || on.name != "lock-testkit",
        _ => for_tests || on.name == "lock-core",
    }
}

fn allowed(package: &str) -> &'static str {
    match package {
        "lock-core" => "no `lock-*` crate",
        "lock-testkit" => "only `lock-core`, and `lock-threading` for tests",
        "lock-manager" => "`lock-core` and backends, and `lock-testkit` for tests",
        "lock-cli" => "`lock-manager` and what is below it, and `lock-testkit` for tests",
        _ => "`lock-core`, and `lock-testkit` for tests",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(package: &str, dependencies: &str) -> Vec<String> {
        let path = format!("crates/{package}/Cargo.toml");
        let text = format!("[package]\nname = \"{package}\"\n{dependencies}");
        let tree = Tree::from([(path.as_str(), text.as_str())]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dependencies_that_point_down_are_fine() {
        let backend = "[dependencies]\nlock-core.workspace = true\ntokio.workspace = true\n\
            [dev-dependencies]\nlock-testkit.workspace = true";
        assert_eq!(found("lock-file", backend), [""; 0]);
        assert_eq!(
            found("lock-testkit", "[dependencies]\nlock-core = \"1\""),
            [""; 0]
        );
        assert_eq!(
            found("lock-manager", "[dependencies]\nlock-file = \"1\""),
            [""; 0]
        );
        assert_eq!(
            found("lock-cli", "[dependencies]\nlock-manager = \"1\""),
            [""; 0]
        );
    }

    #[test]
    fn a_sibling_backend_is_named_with_its_line() {
        let found = found(
            "lock-file",
            "[dependencies]\nlock-core = \"1\"\nlock-redis = \"1\"",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/lock-file/Cargo.toml:5: `lock-file` depends on"));
    }

    #[test]
    fn dependencies_that_point_up_are_named() {
        assert_eq!(
            found("lock-core", "[dev-dependencies]\nlock-testkit = \"1\"").len(),
            1
        );
        assert_eq!(
            found("lock-testkit", "[dependencies]\nlock-file = \"1\"").len(),
            1
        );
        assert_eq!(
            found("lock-manager", "[dependencies]\nlock-testkit = \"1\"").len(),
            1
        );
        assert_eq!(
            found("lock-file", "[dependencies]\nlock-testkit = \"1\"").len(),
            1
        );
        assert_eq!(
            found("lock-manager", "[dependencies]\nlock-cli = \"1\"").len(),
            1
        );
    }
}
