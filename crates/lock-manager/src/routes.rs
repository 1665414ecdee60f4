//! Another backend for some keys, by pattern.

use lock_core::{Error, ErrorKind, LockKey, Result};
use serde::{Deserialize, Serialize};

/// One rule: keys whose name matches `pattern` are locked by `backend`.
///
/// `*` stands for any run of characters, also none and also with `/`; everything else stands for
/// itself. Rules are tried in order, and the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Route {
    /// What the name must look like, for instance `schema_*`.
    pub pattern: String,
    /// The backend's name.
    pub backend: String,
}

impl Route {
    /// Keys like `pattern` go to `backend`.
    #[must_use]
    pub fn new(pattern: impl Into<String>, backend: impl AsRef<str>) -> Self {
        Self {
            pattern: pattern.into(),
            backend: backend.as_ref().to_owned(),
        }
    }

    /// Whether a name, without its namespace, is routed by this rule.
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.pattern, name)
    }
}

/// Refuses patterns that can never match, and rules that are never reached.
pub(crate) fn check(routes: &[Route], place: &str) -> Result<()> {
    for (i, route) in routes.iter().enumerate() {
        let pattern = &route.pattern;
        let problem = if pattern.is_empty() {
            "is empty; write what the names look like, such as `schema_*`"
        } else if pattern.contains('\0') {
            "has a NUL, which no name has; leave it out"
        } else if pattern.replace('*', "").len() > LockKey::MAX_LEN {
            "is longer than any name; shorten it"
        } else {
            ""
        };
        if !problem.is_empty() {
            let message = format!(
                "{place}, rule {}: pattern `{}` {problem}",
                i + 1,
                pattern.escape_debug()
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if let Some((j, earlier)) = covered_by(pattern, &routes[..i]) {
            let message = format!(
                "{place}, rule {}: `{pattern}` is never reached, because rule {} (`{}`) stands \
                 before it and takes every such name; move it up, or remove it",
                i + 1,
                j + 1,
                earlier.pattern
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
    }
    Ok(())
}

/// The first rule that takes every name `pattern` takes.
///
/// It takes them all if it matches the pattern with each `*` replaced by a character that no name
/// and no pattern has: only a `*` can swallow that, and it swallows anything else too.
fn covered_by<'a>(pattern: &str, earlier: &'a [Route]) -> Option<(usize, &'a Route)> {
    let generic = pattern.replace('*', "\0");
    earlier
        .iter()
        .enumerate()
        .find(|(_, route)| matches(&route.pattern, &generic))
}

/// Matches by pieces between the stars: the first at the start, the last at the end, the others as
/// early as they come. Linear in the name for each piece, never exponential.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name
        .strip_prefix(first)
        .and_then(|name| name.strip_suffix(last))
    else {
        return false;
    };
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        let Some(at) = name.find(piece) else {
            return false;
        };
        name = &name[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_the_rest_is_literal() {
        for (pattern, name, expected) in [
            ("schema_*", "schema_users", true),
            ("schema_*", "schema_", true),
            ("schema_*", "my_schema_users", false),
            ("*", "anything/at all", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*é*", "café au lait", true),
            ("a?[b]", "a?[b]", true),
            ("a?[b]", "axb", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_rule_behind_a_wider_one_is_refused() {
        let route = |pattern: &str| Route::new(pattern, "file");
        let verdict = |patterns: &[&str]| {
            let routes: Vec<Route> = patterns.iter().map(|pattern| route(pattern)).collect();
            check(&routes, "`routes`").map_err(|error| error.message().to_owned())
        };
        assert_eq!(verdict(&["schema_*", "*"]), Ok(()));
        assert_eq!(
            verdict(&["a*", "*b"]),
            Ok(()),
            "they overlap, and the order decides"
        );
        assert_eq!(verdict(&["a*a", "a"]), Ok(()));
        for hidden in [["*", "a*"], ["a*", "a*"], ["a*", "a*b*"], ["*b*", "abc"]] {
            let message = verdict(&hidden).unwrap_err();
            assert!(message.contains("rule 2"), "{message}");
            assert!(message.contains("move it up"), "{message}");
        }
        assert!(verdict(&[""]).unwrap_err().contains("is empty"));
        assert!(verdict(&["a\0b"]).unwrap_err().contains("NUL"));
        let long = "x".repeat(LockKey::MAX_LEN + 1);
        assert!(verdict(&[&long]).unwrap_err().contains("shorten"));
    }
}
