//! Where things stand in the store.
//!
//! ```text
//! <prefix>/locks/<shard>/<key>/h/<mode>/<attempt>          a holder
//! <prefix>/locks/<shard>/<key>/w/<mode>/<rank>/<attempt>   a waiter
//! <prefix>/sessions/<lease>                                the gate of a session
//! <prefix>/fences/<key>                                    the register of fenced transactions
//! ```
//!
//! Modes and ranks stand in the names so that a transaction can ask for them by ranges: whether
//! nobody holds exclusively, whether nobody of a higher priority has come.

use std::sync::Arc;

use lock_core::{LockKey, Mode, OwnerToken};

use crate::wire::Span;

/// How many parts the keys are divided into for watching.
const SHARDS: u8 = 64;

/// Which part of the keys one belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shard(u8);

/// Where one key's holders and waiters stand.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) key: LockKey,
    pub(crate) shard: Shard,
    /// Ends with a slash. Names of keys have none, so no place lies within another.
    pub(crate) base: Arc<str>,
}

impl Place {
    pub(crate) fn new(prefix: &str, key: &LockKey) -> Self {
        let name = key.encoded();
        let shard = Shard::of(&name);
        Self {
            key: key.clone(),
            shard,
            base: format!("{prefix}/locks/{:02x}/{name}/", shard.0).into(),
        }
    }

    /// Holders and waiters.
    pub(crate) fn all(&self) -> Span {
        Span::prefix(&*self.base)
    }

    pub(crate) fn holders(&self) -> Span {
        Span::prefix(format!("{}h/", self.base))
    }

    pub(crate) fn waiters(&self) -> Span {
        Span::prefix(format!("{}w/", self.base))
    }

    /// Exclusive holders and those of permits: all who exclude a shared one.
    pub(crate) fn unshared_holders(&self) -> Span {
        Span {
            start: format!("{}h/e", self.base).into_bytes(),
            end: format!("{}h/s", self.base).into_bytes(),
        }
    }

    /// The ranges in which somebody stands whose mode can never take turns with this one.
    pub(crate) fn conflicts(&self, mode: Mode) -> Vec<Span> {
        let base = &self.base;
        let roles = ["h", "w"].into_iter();
        match mode {
            Mode::Exclusive => Vec::new(),
            Mode::Shared => roles
                .map(|role| Span::prefix(format!("{base}{role}/p")))
                .collect(),
            Mode::Permit(_) => {
                let code = mode_code(mode);
                let around = |role: &str| {
                    [
                        (format!("{base}{role}/p"), format!("{base}{role}/{code}/")),
                        // `0` is the character after the slash.
                        (format!("{base}{role}/{code}0"), format!("{base}{role}/t")),
                    ]
                };
                roles
                    .flat_map(around)
                    .map(|(start, end)| Span {
                        start: start.into_bytes(),
                        end: end.into_bytes(),
                    })
                    .collect()
            }
        }
    }

    /// The ranges in which waiters of a higher priority stand. Those of permits stand by their
    /// maximum first: where that is not known, all of them are taken for higher.
    pub(crate) fn waiters_above(&self, priority: i8, permits_of: Option<u32>) -> Vec<Span> {
        let rank = rank_code(priority);
        let base = &self.base;
        let of_mode = |code: &str| Span {
            start: format!("{base}w/{code}/").into_bytes(),
            end: format!("{base}w/{code}/{rank}").into_bytes(),
        };
        let permits = match permits_of {
            Some(of) => of_mode(&permit_code(of)),
            None => Span::prefix(format!("{base}w/p")),
        };
        vec![of_mode("e"), of_mode("s"), permits]
    }

    pub(crate) fn holder(&self, mode: Mode, attempt: OwnerToken) -> Vec<u8> {
        format!("{}h/{}/{attempt}", self.base, mode_code(mode)).into_bytes()
    }

    pub(crate) fn waiter(&self, mode: Mode, priority: i8, attempt: OwnerToken) -> Vec<u8> {
        let (mode, rank) = (mode_code(mode), rank_code(priority));
        format!("{}w/{mode}/{rank}/{attempt}", self.base).into_bytes()
    }
}

impl Shard {
    fn of(name: &str) -> Self {
        // FNV-1a, 32 bits: all processes must agree, for ever.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Self((hash ^ (hash >> 16)) as u8 % SHARDS)
    }

    pub(crate) fn span(self, prefix: &str) -> Span {
        Span::prefix(format!("{prefix}/locks/{:02x}/", self.0))
    }
}

/// Every lock of every key.
pub(crate) fn all_locks(prefix: &str) -> Span {
    Span::prefix(format!("{prefix}/locks/"))
}

pub(crate) fn gate(prefix: &str, lease: i64) -> Vec<u8> {
    format!("{prefix}/sessions/{lease:016x}").into_bytes()
}

pub(crate) fn fence(prefix: &str, key: &LockKey) -> Vec<u8> {
    format!("{prefix}/fences/{}", key.encoded()).into_bytes()
}

/// What the name of a holder's or waiter's record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The base of its place.
    pub(crate) base: String,
    pub(crate) role: Role,
    pub(crate) mode: NamedMode,
    pub(crate) attempt: OwnerToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Holder,
    Waiter { priority: i8 },
}

/// A mode without the number of permits, which stands in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedMode {
    Exclusive,
    Shared,
    Permit { of: u32 },
}

impl Name {
    /// `None` for a key that this library did not write.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let (rest, attempt) = text.rsplit_once('/')?;
        let (rest, last) = rest.rsplit_once('/')?;
        let (base, role, mode) = if let Some(base) = rest.strip_suffix("/h") {
            (base, Role::Holder, last)
        } else {
            let (rest, mode) = rest.rsplit_once('/')?;
            let raised = u8::from_str_radix(last, 16).ok()?;
            let priority = i8::try_from(127 - i16::from(raised)).ok()?;
            (rest.strip_suffix("/w")?, Role::Waiter { priority }, mode)
        };
        let mode = match mode.split_at_checked(1)? {
            ("e", "") => NamedMode::Exclusive,
            ("s", "") => NamedMode::Shared,
            ("p", of) => NamedMode::Permit {
                of: u32::from_str_radix(of, 16).ok()?,
            },
            _ => return None,
        };
        Some(Self {
            base: format!("{base}/"),
            role,
            mode,
            attempt: attempt.parse().ok()?,
        })
    }
}

/// `e` sorts before `p`, and `p` before `s`.
fn mode_code(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "e".to_owned(),
        Mode::Shared => "s".to_owned(),
        Mode::Permit(permits) => permit_code(permits.of()),
    }
}

fn permit_code(of: u32) -> String {
    format!("p{of:08x}")
}

/// Higher priorities sort first.
fn rank_code(priority: i8) -> String {
    format!("{:02x}", 127 - i16::from(priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        Place::new("locks", &LockKey::new(name).unwrap())
    }

    #[test]
    fn names_read_back() {
        let (place, attempt) = (place("Orders/42"), OwnerToken::mint());
        for (mode, named) in [
            (Mode::Exclusive, NamedMode::Exclusive),
            (Mode::Shared, NamedMode::Shared),
            (
                Mode::permits(2, 300).unwrap(),
                NamedMode::Permit { of: 300 },
            ),
        ] {
            let name = Name::parse(&place.holder(mode, attempt)).unwrap();
            assert_eq!((name.role, name.mode), (Role::Holder, named));
            for priority in [-128, -1, 0, 127] {
                let name = Name::parse(&place.waiter(mode, priority, attempt)).unwrap();
                assert_eq!((name.role, name.mode), (Role::Waiter { priority }, named));
                assert_eq!((&*name.base, name.attempt), (&*place.base, attempt));
            }
        }
        assert_eq!(Name::parse(b"locks/sessions/0000"), None);
    }

    #[test]
    fn a_higher_priority_stands_in_the_ranges_above() {
        let (place, attempt) = (place("a"), OwnerToken::mint());
        let above = |mode, priority, of| {
            let key = place.waiter(mode, priority, attempt);
            let within = |span: &Span| span.start <= key && key < span.end;
            place.waiters_above(of, Some(3)).iter().any(within)
        };
        for mode in [Mode::Exclusive, Mode::Shared, Mode::permit(3).unwrap()] {
            assert!(above(mode, 1, 0) && above(mode, 127, 126));
            assert!(!above(mode, 0, 0) && !above(mode, -1, 0));
        }
    }

    #[test]
    fn conflicts_are_ranges_of_other_modes() {
        let (place, attempt) = (place("a"), OwnerToken::mint());
        let modes = [
            Mode::Exclusive,
            Mode::Shared,
            Mode::permit(2).unwrap(),
            Mode::permit(255).unwrap(),
            Mode::permit(256).unwrap(),
        ];
        for mode in modes {
            for other in modes {
                for key in [
                    place.holder(other, attempt),
                    place.waiter(other, 0, attempt),
                ] {
                    let within = |span: &Span| span.start <= key && key < span.end;
                    let conflict = place.conflicts(mode).iter().any(within);
                    assert_eq!(conflict, mode.conflicts_with(other), "{mode} and {other}");
                }
            }
        }
    }
}
