//! A key as the table keeps it.

use std::fmt;

use lock_core::{LockKey, Result};

/// Longer names are kept by reference.
const INLINE: usize = 24;
const WORD: usize = size_of::<u64>();

/// A key as the table keeps it: short ones by value, in words that are quick to move, for a
/// reference count that cores share costs more than the copy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Short {
        len: u8,
        words: [u64; INLINE / WORD],
    },
    Long(LockKey),
}

impl Name {
    #[inline]
    pub(crate) fn of(key: &LockKey) -> Self {
        let qualified = key.qualified().as_bytes();
        if qualified.len() > INLINE {
            return Self::Long(key.clone());
        }
        let mut words = [0; INLINE / WORD];
        let (whole, rest) = qualified.as_chunks::<WORD>();
        for (word, chunk) in words.iter_mut().zip(whole) {
            *word = u64::from_le_bytes(*chunk);
        }
        if let Some(last) = words.get_mut(whole.len()) {
            let shifted = |(at, byte): (usize, &u8)| u64::from(*byte) << (8 * at);
            *last = rest.iter().enumerate().map(shifted).sum();
        }
        Self::Short {
            len: qualified.len() as u8,
            words,
        }
    }

    pub(crate) fn key(&self) -> Result<LockKey> {
        match self {
            Self::Short { .. } => {
                self.with_text(|text| LockKey::from_qualified(&String::from_utf8_lossy(text)))
            }
            Self::Long(key) => Ok(key.clone()),
        }
    }

    fn with_text<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Short { len, words } => {
                let bytes = words.map(u64::to_le_bytes);
                read(&bytes.as_flattened()[..usize::from(*len)])
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
