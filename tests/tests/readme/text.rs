//! The code blocks of the documents, and where and with what they are run.

use std::ffi::OsString;

/// The root of the workspace, where the README's commands are run.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The cargo that runs this test, whatever a shell would find.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The README's blocks of a language, in order.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    blocks_of("README.md", language)
}

/// The blocks of a language in any document, in order.
pub(crate) fn blocks_of(document: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
    let fence = format!("\n```{language}\n");
    let blocks: Vec<String> = text
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap().to_owned())
        .collect();
    assert!(!blocks.is_empty(), "{document} has no block of {language}");
    blocks
}
