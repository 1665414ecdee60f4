//! Relative links in Markdown point to files that exist.

use super::tree::{Tree, Violation, numbered};

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts_with("md") {
        for (number, line) in prose(text) {
            for target in targets(&line).filter(|target| is_file(target)) {
                let file = target.split('#').next().unwrap_or_default();
                let found = resolve(path, file).is_some_and(|file| tree.contains(&file));
                if !found {
                    let what = format!("a link to `{target}`, which does not exist");
                    violations.push(Violation::new(
                        path,
                        number,
                        what,
                        "the path from this file",
                    ));
                }
            }
        }
    }
    violations
}

/// Lines outside code blocks, without their `code spans`.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_code = false;
    numbered(text).filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then(|| (number, line.split('`').step_by(2).collect()))
    })
}

/// What `[text](target "title")` and `[name]: target` in `line` point to.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let inline = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let definition = line
        .starts_with('[')
        .then(|| line.split_once("]: "))
        .flatten();
    inline
        .chain(definition.map(|(_, target)| target))
        .filter_map(|target| target.split_whitespace().next())
}

/// Not a place on the web, a heading of the same file, or an item in Rust's documentation.
fn is_file(target: &str) -> bool {
    let is_rust_item =
        target.contains("::") || (!target.contains(['.', '/']) && target != "LICENSE");
    let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
    !is_rust_item && !is_elsewhere && !target.starts_with('#')
}

/// The path from the root that `target` means in the file `from`; nothing outside the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let tree = Tree::from([("docs/a.md", text), ("docs/b.md", ""), ("README.md", "")]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_to_files_and_folders_that_exist_are_fine() {
        let fine =
            "[b](b.md) [b](./b.md#part) [up](../README.md \"title\") [docs](../docs/)\n[b]: b.md\n";
        assert_eq!(found(fine), [""; 0]);
    }

    #[test]
    fn links_elsewhere_are_not_looked_at() {
        let elsewhere =
            "[w](https://example.org/x.md) [h](#heading) [i](crate::LockKey) [j](LockKey)";
        assert_eq!(found(elsewhere), [""; 0]);
    }

    #[test]
    fn dead_links_are_found() {
        assert!(found("x\n[c](c.md)")[0].starts_with("docs/a.md:2: a link to `c.md`"));
        assert_eq!(found("[c]: c.md").len(), 1);
        assert_eq!(found("[out](../../x.md)").len(), 1);
    }

    #[test]
    fn code_is_not_looked_at() {
        assert_eq!(found("`[c](c.md)`\n```text\n[c](c.md)\n```\n"), [""; 0]);
        assert_eq!(found("```\n```\n[c](c.md)").len(), 1);
    }
}
