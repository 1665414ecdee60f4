//! `cargo xtask tidy`: the house rules that no compiler checks, over the files that git tracks.
//!
//! One module per group of rules. A rule is a function from the [`Tree`] to its violations, so
//! that its tests need no files.

mod documents;
mod layers;
mod links;
mod manifest;
mod members;
mod rust_code;
mod rust_files;
mod text;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::metadata::Metadata;
use tree::{Tree, Violation};

/// A group of rules.
type Rules = fn(&Tree) -> Vec<Violation>;

const RULES: &[Rules] = &[
    members::check,
    layers::check,
    rust_files::check,
    text::check,
    documents::check,
    links::check,
];

pub(crate) fn main() -> Result<ExitCode> {
    check(&Metadata::load()?.workspace_root)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints notes and violations; fails when there is a violation, or nothing to look at.
pub(crate) fn check(root: &Path) -> Result<()> {
    let tree = Tree::tracked_by_git(root)?;
    for note in rust_files::notes(&tree) {
        println!("note: {note}");
    }
    let violations: Vec<Violation> = RULES.iter().flat_map(|rules| rules(&tree)).collect();
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => println!("{} files are tidy", tree.len()),
        1 => bail!("1 violation in {} files", tree.len()),
        many => bail!("{many} violations in {} files", tree.len()),
    }
    Ok(())
}
