//! One function makes a name that every store takes.

use sha2::{Digest, Sha256};

/// Plain names up to this length stand as they are.
const MAX_PLAIN: usize = 64;
/// How much of a name that is not plain stays readable.
const MAX_READABLE: usize = 40;
/// Bytes of the hash that are kept: 128 bits, so a million names collide with chance 2^-89.
const HASH_BYTES: usize = 16;

/// Device names that Windows reserves, with and without a suffix after a dot.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];
const RESERVED_NUMBERED: [&str; 2] = ["com", "lpt"];

pub(super) fn encode(namespace: &str, name: &str) -> String {
    let body = if is_plain(name) {
        name.to_owned()
    } else {
        hashed(name)
    };
    // Invariant: `+` and `~` are in no plain name and in no namespace, so no two keys share a name.
    if namespace.is_empty() {
        body
    } else {
        format!("{namespace}+{body}")
    }
}

fn is_plain(name: &str) -> bool {
    name.len() <= MAX_PLAIN
        && name
            .bytes()
            .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        && !name.starts_with(['.', '-'])
        && !name.ends_with('.')
        && !is_reserved(name)
}

fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    RESERVED.contains(&stem)
        || RESERVED_NUMBERED.iter().any(|device| {
            stem.strip_prefix(device)
                .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
        })
}

fn hashed(name: &str) -> String {
    use std::fmt::Write as _;
    let readable = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
        _ => '_',
    };
    let mut out: String = name.chars().take(MAX_READABLE).map(readable).collect();
    // A leading `-` would look like an option to shell tools.
    if out.starts_with('-') {
        out.replace_range(..1, "_");
    }
    out.push('~');
    for byte in &Sha256::digest(name.as_bytes())[..HASH_BYTES] {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn plain_names_stand_as_they_are() {
        for name in ["a", "nightly-import", "orders.42", "v1_x", &"a".repeat(64)] {
            assert_eq!(encode("", name), name);
        }
        assert_eq!(encode("shop", "a"), "shop+a");
    }

    #[test]
    fn everything_else_is_hashed_and_safe_on_systems_that_fold_case() {
        let names = [
            "A", "a/b", "..", ".", ".hidden", "-rf", "con", "nul.txt", "com1", "a.", "a~b", "a+b",
            "é", "e\u{301}", "{}", " ", "\n", "aux",
        ];
        let mut seen = HashSet::new();
        for name in names {
            let encoded = encode("", name);
            assert!(encoded.contains('~'), "{name:?} became {encoded}");
            assert_eq!(encoded, encoded.to_lowercase());
            assert!(!encoded.starts_with(['.', '-']) && encoded.len() <= 140);
            assert!(seen.insert(encoded), "{name:?} collides");
        }
    }

    #[test]
    fn a_hundred_thousand_names_do_not_collide() {
        let mut seen = HashSet::new();
        for i in 0..50_000 {
            assert!(seen.insert(encode("", &format!("Lock/{i}"))));
            assert!(seen.insert(encode("", &format!("lock-{i}"))));
        }
    }

    #[test]
    fn the_encoding_never_changes_between_releases() {
        // Written data of an earlier release must exclude this one: do not edit these strings.
        assert_eq!(
            encode("", "Orders/42"),
            "orders_42~290affee6f174f12d324ec515106d1a8"
        );
    }
}
