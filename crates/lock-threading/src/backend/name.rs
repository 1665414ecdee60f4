//! A key as the table keeps it.

use std::fmt;

use lock_core::{LockKey, Result};

/// Longer names are kept by reference.
const INLINE: usize = WORDS * WORD - 1;
const WORDS: usize = 3;
const WORD: usize = size_of::<u64>();

/// A key as the table keeps it: short ones by value, in words that are quick to move, for a
/// reference count that cores share costs more than the copy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// The last byte is the length.
    Short([u64; WORDS]),
    Long(LockKey),
}

impl Name {
    #[inline]
    pub(crate) fn of(key: &LockKey) -> Self {
        let qualified = key.qualified().as_bytes();
        if qualified.len() > INLINE {
            return Self::Long(key.clone());
        }
        let mut bytes = [0; WORDS * WORD];
        bytes[..qualified.len()].copy_from_slice(qualified);
        bytes[INLINE] = qualified.len() as u8;
        let (words, _) = bytes.as_chunks();
        let mut short = [0; WORDS];
        for (word, chunk) in short.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self::Short(short)
    }

    /// Whether nothing is lost when it is forgotten instead of dropped.
    #[inline]
    pub(crate) fn is_light(&self) -> bool {
        matches!(self, Self::Short(_))
    }

    pub(crate) fn key(&self) -> Result<LockKey> {
        match self {
            Self::Short(_) => {
                self.with_text(|text| LockKey::from_qualified(&String::from_utf8_lossy(text)))
            }
            Self::Long(key) => Ok(key.clone()),
        }
    }

    pub(crate) fn with_text<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Short(words) => {
                let bytes = words.map(u64::to_le_bytes);
                let bytes = bytes.as_flattened();
                read(&bytes[..usize::from(bytes[INLINE])])
            }
            Self::Long(key) => read(key.qualified().as_bytes()),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(&String::from_utf8_lossy(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_themselves() {
        for len in [1, 7, 8, 14, 15, 16, 22, 23, 24, 25, 4096] {
            let key = LockKey::new("é".repeat(len / 2) + &"x".repeat(len % 2)).unwrap();
            let other = LockKey::new("x".repeat(len)).unwrap();
            let name = Name::of(&key);
            assert!(key == other || name != Name::of(&other));
            assert_eq!(name.key().unwrap(), key);
        }
    }
}
