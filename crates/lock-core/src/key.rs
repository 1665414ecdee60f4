//! The name of the thing that is protected.

mod encode;
mod path;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// The name of the thing that is protected: non-empty UTF-8 without NUL, at most 4 KiB,
/// case-sensitive, hierarchical by `/` where the caller wants it to be.
///
/// Names are compared byte for byte: `é` composed and decomposed are two names. A *namespace* keeps
/// applications that share a backend apart; it is part of the identity.
///
/// Cloning is one reference count; building one is the only allocation of an uncontended acquire.
///
/// ```
/// use lock_core::LockKey;
///
/// let key = LockKey::new("orders/42")?.in_namespace("shop")?;
/// assert_eq!(key.name(), "orders/42");
/// assert_eq!(key.namespace(), "shop");
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey {
    /// `namespace:name`; a namespace has no colon, so this is unambiguous.
    qualified: Arc<str>,
}

impl LockKey {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 4096;
    /// The longest namespace, in bytes.
    pub const MAX_NAMESPACE_LEN: usize = 64;

    /// A key in the empty namespace.
    ///
    /// # Errors
    /// `InvalidKey` for an empty name, a NUL byte, or more than [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check_name(name)?;
        Ok(Self {
            qualified: format!(":{name}").into(),
        })
    }

    /// The same name in another namespace. The empty string means none.
    ///
    /// # Errors
    /// `InvalidKey` unless the namespace is at most 64 of `a`-`z`, `0`-`9`, `.`, `_`, `-`, and starts
    /// with a letter or digit.
    pub fn in_namespace(&self, namespace: &str) -> Result<Self> {
        check_namespace(namespace)?;
        Ok(Self {
            qualified: format!("{namespace}:{}", self.name()).into(),
        })
    }

    /// The key of a file: `./a`, `a`, `b/../a` and a symbolic link to `a` are one lock.
    ///
    /// Resolves links and relative parts against the file system as it is now; what does not exist
    /// yet is resolved by its words alone. Bytes that are not UTF-8 are percent-encoded.
    ///
    /// # Errors
    /// `InvalidKey` when the path is empty or the current directory is gone.
    pub fn path(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(path::canonical_name(path.as_ref())?)
    }

    /// Reads what [`qualified`](Self::qualified) wrote.
    ///
    /// # Errors
    /// `InvalidKey` when the text has no colon or breaks the rules for names.
    pub fn from_qualified(qualified: &str) -> Result<Self> {
        let Some((namespace, name)) = qualified.split_once(':') else {
            return Err(invalid(format!(
                "`{qualified}` has no namespace; write `:{qualified}`"
            )));
        };
        check_namespace(namespace)?;
        check_name(name)?;
        Ok(Self {
            qualified: qualified.into(),
        })
    }

    /// The name, without the namespace.
    pub fn name(&self) -> &str {
        self.split().1
    }

    /// The namespace; empty if there is none.
    pub fn namespace(&self) -> &str {
        self.split().0
    }

    /// `namespace:name`: the identity as one string, for records.
    pub fn qualified(&self) -> &str {
        &self.qualified
    }

    /// A name that every file system and store takes, also those that fold case or reserve words.
    ///
    /// Short names of `a`-`z`, `0`-`9`, `.`, `_`, `-` stand as they are. Everything else becomes a
    /// readable part, `~` (which no plain name has), and 128 bits of SHA-256. At most 140 bytes.
    pub fn encoded(&self) -> String {
        let (namespace, name) = self.split();
        encode::encode(namespace, name)
    }

    fn split(&self) -> (&str, &str) {
        self.qualified
            .split_once(':')
            .unwrap_or(("", &self.qualified))
    }
}

impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.split() {
            ("", name) => write!(f, "{}", name.escape_debug()),
            (namespace, name) => write!(f, "{namespace}:{}", name.escape_debug()),
        }
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockKey({:?})", &*self.qualified)
    }
}

impl TryFrom<&str> for LockKey {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("the name is empty; give the lock a name".into()));
    }
    if name.len() > LockKey::MAX_LEN {
        return Err(invalid(format!(
            "the name has {} bytes, {} are allowed; use a digest of the long part",
            name.len(),
            LockKey::MAX_LEN
        )));
    }
    if let Some(at) = name.find('\0') {
        return Err(invalid(format!(
            "the name has a NUL at byte {at}; leave it out"
        )));
    }
    Ok(())
}

fn check_namespace(namespace: &str) -> Result<()> {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let starts_well = namespace
        .as_bytes()
        .first()
        .is_none_or(|c| c.is_ascii_alphanumeric());
    if namespace.len() > LockKey::MAX_NAMESPACE_LEN
        || !namespace.bytes().all(allowed)
        || !starts_well
    {
        return Err(invalid(format!(
            "`{}` is no namespace; write at most {} of a-z, 0-9, `.`, `_`, `-`, starting with a \
             letter or digit",
            namespace.escape_debug(),
            LockKey::MAX_NAMESPACE_LEN
        )));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidKey, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_told_what_to_write() {
        for bad in ["", "a\0b", &"x".repeat(4097)] {
            assert_eq!(LockKey::new(bad).unwrap_err().kind(), ErrorKind::InvalidKey);
        }
        for good in [
            "a",
            "..",
            "/",
            "{}",
            " ",
            "é",
            "🔒",
            "a\nb",
            &"x".repeat(4096),
        ] {
            assert_eq!(LockKey::new(good).unwrap().name(), good);
        }
    }

    #[test]
    fn a_namespace_cannot_be_forged_by_a_name() {
        let outside = LockKey::new("a:b").unwrap();
        let inside = LockKey::new("b").unwrap().in_namespace("a").unwrap();
        assert_ne!(outside, inside);
        assert_ne!(outside.encoded(), inside.encoded());
        assert_eq!(LockKey::from_qualified(inside.qualified()).unwrap(), inside);
        assert_eq!(
            LockKey::from_qualified(outside.qualified()).unwrap(),
            outside
        );
        assert!(LockKey::new("x").unwrap().in_namespace("A b").is_err());
    }
}
