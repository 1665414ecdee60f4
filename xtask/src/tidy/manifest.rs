//! A `Cargo.toml` as the rules read it.

use toml::{Table, Value};

use super::tree::{Tree, Violation, numbered};

/// The parsed manifest at `path`.
#[derive(Debug)]
pub(super) struct Manifest<'a> {
    pub(super) path: &'a str,
    text: &'a str,
    pub(super) table: Table,
}

/// One dependency of a package on another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) for_tests_only: bool,
}

impl<'a> Manifest<'a> {
    /// Every manifest but the root's, and a violation for each that does not parse.
    pub(super) fn packages(tree: &'a Tree) -> (Vec<Self>, Vec<Violation>) {
        let mut packages = Vec::new();
        let mut violations = Vec::new();
        for (path, text) in tree
            .texts()
            .filter(|(path, _)| path.ends_with("/Cargo.toml"))
        {
            match Self::parse(path, text) {
                Ok(manifest) => packages.push(manifest),
                Err(violation) => violations.push(violation),
            }
        }
        (packages, violations)
    }

    pub(super) fn parse(path: &'a str, text: &'a str) -> Result<Self, Violation> {
        match text.parse() {
            Ok(table) => Ok(Self { path, text, table }),
            Err(error) => Err(Violation::new(
                path,
                1,
                format!("no TOML: {error}"),
                "a valid manifest",
            )),
        }
    }

    /// The folder of the package, without a `/` at its end.
    pub(super) fn folder(&self) -> &'a str {
        self.path.strip_suffix("/Cargo.toml").unwrap_or_default()
    }

    /// The value at `keys`, one table inside the other.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&Value> {
        let (last, tables) = keys.split_last()?;
        let mut table = &self.table;
        for key in tables {
            table = table.get(*key)?.as_table()?;
        }
        table.get(*last)
    }

    /// Whether the value at `keys` is taken over from the workspace.
    pub(super) fn inherits(&self, keys: &[&str]) -> bool {
        let path = [keys, &["workspace"]].concat();
        self.get(&path).and_then(Value::as_bool) == Some(true)
    }

    pub(super) fn name(&self) -> &str {
        self.get(&["package", "name"])
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The first line that starts with `word`, or the first of all.
    pub(super) fn line_of(&self, word: &str) -> usize {
        numbered(self.text)
            .find(|(_, line)| line.trim_start_matches(['[', '"']).starts_with(word))
            .map_or(1, |(number, _)| number)
    }

    /// What the package depends on, on whichever platform, under the real names.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let platforms = self.get(&["target"]).and_then(Value::as_table);
        let platforms = platforms
            .into_iter()
            .flat_map(Table::values)
            .filter_map(Value::as_table);
        std::iter::once(&self.table)
            .chain(platforms)
            .flat_map(dependencies_in)
            .collect()
    }
}

fn dependencies_in(table: &Table) -> Vec<Dependency> {
    let kinds = [
        ("dependencies", false),
        ("build-dependencies", false),
        ("dev-dependencies", true),
    ];
    let mut found = Vec::new();
    for (kind, for_tests_only) in kinds {
        let Some(dependencies) = table.get(kind).and_then(Value::as_table) else {
            continue;
        };
        for (key, value) in dependencies {
            let name = value
                .get("package")
                .and_then(Value::as_str)
                .unwrap_or(key)
                .to_owned();
            found.push(Dependency {
                name,
                for_tests_only,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[package]
name = "lock-file"
version.workspace = true

[dependencies]
core = { package = "lock-core", path = "../lock-core" }

[target.'cfg(unix)'.dependencies]
libc.workspace = true

[dev-dependencies]
tempfile.workspace = true
"#;

    #[test]
    fn dependencies_are_found_under_their_real_names_on_every_platform() {
        let manifest = Manifest::parse("crates/lock-file/Cargo.toml", TEXT).unwrap();
        let names: Vec<(String, bool)> = manifest
            .dependencies()
            .into_iter()
            .map(|d| (d.name, d.for_tests_only))
            .collect();
        assert_eq!(
            names,
            [
                ("lock-core".into(), false),
                ("tempfile".into(), true),
                ("libc".into(), false)
            ]
        );
    }

    #[test]
    fn inherited_values_and_lines_are_found() {
        let manifest = Manifest::parse("crates/lock-file/Cargo.toml", TEXT).unwrap();
        assert!(manifest.inherits(&["package", "version"]));
        assert!(!manifest.inherits(&["package", "edition"]));
        assert_eq!(manifest.line_of("libc"), 10);
        assert_eq!(manifest.folder(), "crates/lock-file");
    }

    #[test]
    fn a_broken_manifest_is_a_violation() {
        let violation = Manifest::parse("x/Cargo.toml", "[package").unwrap_err();
        assert_eq!(violation.path, "x/Cargo.toml");
    }
}
