//! A key as the table keeps it.

use std::fmt;

use lock_core::{LockKey, Result};

/// Longer names are kept by reference.
const INLINE: usize = 30;

/// A key as the table keeps it: short ones by value, for a reference count that cores share costs
/// more than the copy.
#[derive(Clone)]
pub(crate) enum Name {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(LockKey),
}

impl Name {
    #[inline]
    pub(crate) fn of(key: &LockKey) -> Self {
        let qualified = key.qualified().as_bytes();
        if qualified.len() > INLINE {
            return Self::Long(key.clone());
        }
        let mut bytes = [0; INLINE];
        bytes[..qualified.len()].copy_from_slice(qualified);
        Self::Short {
            len: qualified.len() as u8,
            bytes,
        }
    }

    pub(crate) fn is(&self, key: &LockKey) -> bool {
        self.bytes() == key.qualified().as_bytes()
    }

    pub(crate) fn key(&self) -> Result<LockKey> {
        match self {
            Self::Short { .. } => LockKey::from_qualified(&String::from_utf8_lossy(self.bytes())),
            Self::Long(key) => Ok(key.clone()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(key) => key.qualified().as_bytes(),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_themselves() {
        for len in [1, 28, 29, 30, 31, 4096] {
            let key = LockKey::new("é".repeat(len / 2) + &"x".repeat(len % 2)).unwrap();
            let other = LockKey::new("x".repeat(len)).unwrap();
            let name = Name::of(&key);
            assert!(name.is(&key) && !(key != other && name.is(&other)));
            assert_eq!(name.key().unwrap(), key);
        }
    }
}
