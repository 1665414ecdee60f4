//! The files that rules look at, and what they find.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::Program;

/// Tracked files by path from the root, with `/` between folders.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// No text for a file that is not UTF-8: it can be linked to, and has no lines to check.
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    pub(super) fn tracked_by_git(root: &Path) -> Result<Self> {
        let listed = Program::new("git -C").arg(root.display().to_string());
        // A checkout that another user made, as in a container, is still ours to read.
        let listed = listed
            .arg("-c")
            .arg(format!("safe.directory={}", root.display()));
        let listed = listed.arg("ls-files").arg("-z").read()?;
        let listed = String::from_utf8(listed).context("a tracked path is not UTF-8; rename it")?;

        let mut files = BTreeMap::new();
        for path in listed.split('\0').filter(|path| root.join(path).is_file()) {
            let bytes = std::fs::read(root.join(path)).with_context(|| path.to_owned())?;
            files.insert(path.to_owned(), String::from_utf8(bytes).ok());
        }
        if files.is_empty() {
            bail!(
                "git tracks no file in {}; run this in a checkout",
                root.display()
            );
        }
        Ok(Self { files })
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// All text files.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// All text files whose path ends in `.extension`.
    pub(super) fn texts_with(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| {
            Path::new(path)
                .extension()
                .is_some_and(|found| found == extension)
        })
    }

    /// Whether `path` is a tracked file, or a folder with one in it.
    pub(super) fn contains(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.keys().any(|file| file.starts_with(&inside))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(files: [(&str, &str); N]) -> Self {
        let own = |(path, text): (&str, &str)| (path.to_owned(), Some(text.to_owned()));
        Self {
            files: files.into_iter().map(own).collect(),
        }
    }
}

/// One broken rule in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) what: String,
    /// What to write instead.
    pub(super) instead: String,
}

impl Violation {
    pub(super) fn new(
        path: &str,
        line: usize,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
            instead: instead.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} — {}",
            self.path, self.line, self.what, self.instead
        )
    }
}

/// Lines with their numbers as editors count them.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_contains_files_and_their_folders() {
        let tree = Tree::from([("docs/a.md", "")]);
        assert!(tree.contains("docs/a.md"));
        assert!(tree.contains("docs"));
        assert!(tree.contains(""));
        assert!(!tree.contains("doc"));
    }

    #[test]
    fn a_violation_is_one_line_with_the_remedy() {
        let violation = Violation::new("a.rs", 3, "a tab", "four spaces");
        assert_eq!(violation.to_string(), "a.rs:3: a tab — four spaces");
    }
}
