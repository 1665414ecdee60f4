//! A held lock between two guards.

use std::fmt;
use std::str::FromStr;

use crate::guard::Bounds;
use crate::{
    Error, ErrorKind, Fence, FencingNumber, LockKey, Mode, OwnerToken, ReadVersion, Result, Slot,
    Validity,
};

/// A held lock without a guard, to be attached again by [`Lock::attach`](crate::Lock::attach).
///
/// `Display` and `FromStr` carry it to another process, where the backend reaches that far. Whoever
/// has the text can release the lock: treat it like a password.
#[derive(Clone, Debug)]
#[must_use = "a detached lock stays held until it is attached and released, or ends by itself"]
pub struct Detached {
    pub(crate) key: LockKey,
    pub(crate) attempt: OwnerToken,
    pub(crate) mode: Mode,
    pub(crate) fence: Fence,
    pub(crate) validity: Option<Validity>,
    /// What goes on bounding the hold. Text does not carry it.
    pub(crate) bounds: Option<Box<Bounds>>,
}

impl Detached {
    /// The key it was detached from.
    pub fn key(&self) -> &LockKey {
        &self.key
    }
}

impl fmt::Display for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Exclusive => "x".to_owned(),
            Mode::Shared => "s".to_owned(),
            Mode::Permit(permits) => format!("p{}/{}", permits.count(), permits.of()),
        };
        let fence = match self.fence {
            Fence::Exclusive(number) => number.get(),
            Fence::Shared(version) => version.map_or(0, |version| version.0.get()),
            Fence::Permit(slot) => slot.0.into(),
        };
        write!(
            f,
            "{} {mode} {fence} {}",
            self.attempt,
            self.key.qualified()
        )
    }
}

impl FromStr for Detached {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::new(
                ErrorKind::InvalidKey,
                "this text is no detached lock; pass what was printed",
            )
        };
        let mut parts = text.splitn(4, ' ');
        let mut part = || parts.next().ok_or_else(malformed);
        let (attempt, mode, fence, key) = (part()?, part()?, part()?, part()?);
        let number: u64 = fence.parse().map_err(|_| malformed())?;
        let fencing = || FencingNumber::from_raw(number).ok_or_else(malformed);
        let (mode, fence) = match mode {
            "x" => (Mode::Exclusive, Fence::Exclusive(fencing()?)),
            "s" if number == 0 => (Mode::Shared, Fence::Shared(None)),
            "s" => (Mode::Shared, Fence::Shared(Some(ReadVersion(fencing()?)))),
            permit => {
                let (count, of) = permit
                    .strip_prefix('p')
                    .and_then(|permits| permits.split_once('/'))
                    .ok_or_else(malformed)?;
                let parse = |text: &str| text.parse().map_err(|_| malformed());
                let slot = u32::try_from(number).map_err(|_| malformed())?;
                (
                    Mode::permits(parse(count)?, parse(of)?)?,
                    Fence::Permit(Slot(slot)),
                )
            }
        };
        let key = LockKey::from_qualified(key)?;
        Ok(Self {
            key,
            attempt: attempt.parse()?,
            mode,
            fence,
            validity: None,
            bounds: None,
        })
    }
}
