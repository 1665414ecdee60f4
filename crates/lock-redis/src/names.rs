//! What a lock's keys are called in the store.

use lock_core::LockKey;

/// The keys of one lock, all in one hash slot: the encoded name, which has no braces of its own, is
/// the hash tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Names {
    /// The hash; the others add a suffix.
    pub(crate) base: String,
}

impl Names {
    pub(crate) fn new(prefix: &str, key: &LockKey) -> Self {
        let encoded = key.encoded();
        Self {
            base: format!("{prefix}:{{{encoded}}}"),
        }
    }

    /// In the order of `library.lua`: hash, waiters, sharers, permits, cancelled.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut all = vec![self.base.clone()];
        all.extend(["w", "s", "p", "c"].map(|suffix| self.with(suffix)));
        all
    }

    pub(crate) fn hash_and_sharers(&self) -> [String; 2] {
        [self.base.clone(), self.with("s")]
    }

    fn with(&self, suffix: &str) -> String {
        format!("{}:{suffix}", self.base)
    }

    /// The hash slot, which decides the node of a cluster.
    pub(crate) fn slot(&self) -> u16 {
        slot_of(&self.base)
    }
}

/// What finds the hashes of a namespace; the empty one has to be filtered.
pub(crate) fn pattern(prefix: &str, namespace: &str) -> String {
    if namespace.is_empty() {
        format!("{prefix}:{{*}}")
    } else {
        format!("{prefix}:{{{namespace}+*}}")
    }
}

/// The encoded name in the name of a hash, if it is one.
pub(crate) fn encoded_of<'a>(prefix: &str, hash: &'a str) -> Option<&'a str> {
    let rest = hash.strip_prefix(prefix)?.strip_prefix(":{")?;
    rest.strip_suffix('}')
}

/// The key of an encoded name that stands for itself; hashed ones are in the record.
pub(crate) fn plain_key(encoded: &str) -> Option<LockKey> {
    if encoded.contains('~') {
        return None;
    }
    let (namespace, name) = encoded.split_once('+').unwrap_or(("", encoded));
    LockKey::new(name).ok()?.in_namespace(namespace).ok()
}

/// CRC16 (XMODEM) of the hash tag, modulo the number of slots, as the cluster specification has it.
fn slot_of(name: &str) -> u16 {
    let tag = name
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map_or(name, |(tag, _)| tag);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ (if crc & 0x8000 == 0 { 0 } else { 0x1021 })
        })
    });
    crc % SLOTS
}

/// How many hash slots a cluster has.
pub(crate) const SLOTS: u16 = 16384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_lock_share_a_slot_whatever_its_name() {
        for name in ["a", "{}", "}{", "a{b}c", "}", "é"] {
            let names = Names::new("lock", &LockKey::new(name).unwrap());
            for key in names.all() {
                assert_eq!(slot_of(&key), names.slot(), "{key}");
                assert_eq!(key.matches(['{', '}']).count(), 2, "{key}");
            }
        }
        // From the cluster specification.
        assert_eq!(slot_of("123456789"), 0x31c3 % SLOTS);
    }

    #[test]
    fn a_plain_name_reads_back() {
        let key = LockKey::new("a.b").unwrap().in_namespace("shop").unwrap();
        let names = Names::new("my:prefix", &key);
        let encoded = encoded_of("my:prefix", &names.base).unwrap();
        assert_eq!(plain_key(encoded), Some(key));
        assert_eq!(encoded_of("my:prefix", &names.with("w")), None);
        assert_eq!(plain_key("a~0123"), None);
    }
}
