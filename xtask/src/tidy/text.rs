//! Rules about every text file.

use super::tree::{Tree, Violation, numbered};

/// Folders of somebody's machine. Written apart so that this file does not break its own rule.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "home/"),
];

/// Hosts that only a lock file needs to know.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("proxy.golang", ".org"),
];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts() {
        for (number, line) in numbered(text) {
            violations.extend(trailing_white_space(path, number, line));
            violations.extend(machine_path(path, number, line));
            violations.extend(registry(path, number, line));
        }
    }
    violations
}

fn trailing_white_space(path: &str, number: usize, line: &str) -> Option<Violation> {
    line.ends_with(char::is_whitespace)
        .then(|| Violation::new(path, number, "white space at the end of the line", "none"))
}

fn machine_path(path: &str, number: usize, line: &str) -> Option<Violation> {
    let folder = MACHINE_FOLDERS
        .iter()
        .find(|folder| has_absolute(line, folder))?;
    let what = format!("`{folder}` exists on one machine only");
    Some(Violation::new(
        path,
        number,
        what,
        "a path relative to the repository, or a variable",
    ))
}

/// Whether `folder` begins a path in `line`, rather than being inside one (`docs/work/`).
fn has_absolute(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(start, _)| {
        !line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-*}/".contains(c))
    })
}

fn registry(path: &str, number: usize, line: &str) -> Option<Violation> {
    if path.ends_with("Cargo.lock") {
        return None;
    }
    let host = REGISTRIES.iter().find(|host| line.contains(**host))?;
    let what = format!("`{host}` is a package registry");
    Some(Violation::new(
        path,
        number,
        what,
        "the name of the package",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<Violation> {
        check(&Tree::from([(path, text)]))
    }

    #[test]
    fn trailing_white_space_is_found() {
        let found = found("a.md", "one\ntwo \n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn machine_paths_are_found_only_where_a_path_begins() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(found("a.md", &format!("in `{folder}x`")).len(), 1);
            assert_eq!(found("a.md", &format!("{folder}x")).len(), 1);
            assert_eq!(found("a.md", &format!("docs{folder}x")), []);
        }
    }

    #[test]
    fn registries_are_found_outside_lock_files() {
        for host in REGISTRIES {
            let text = format!("https://{host}/x");
            assert_eq!(found("a.md", &text).len(), 1);
            assert_eq!(found("Cargo.lock", &text), []);
        }
    }
}
