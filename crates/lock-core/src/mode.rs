//! How a holder shares a key with others.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// How a holder shares a key with others.
///
/// | held \ asked | exclusive | shared | permit of the same `of` |
/// |---|---|---|---|
/// | exclusive | waits | waits | waits |
/// | shared | waits | granted | mode conflict |
/// | permit | waits | mode conflict | granted while permits are left |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Excludes every other holder.
    #[default]
    Exclusive,
    /// Held together with other shared holders only.
    Shared,
    /// Some of a fixed number of permits. Build it with [`Mode::permit`].
    Permit(Permits),
}

/// `count` permits out of `of`.
///
/// Aligned so that a [`Mode`] is two words, which processors move without waiting for the halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct Permits {
    count: u32,
    of: u32,
}

impl Permits {
    /// How many permits this holder takes.
    pub fn count(self) -> u32 {
        self.count
    }

    /// How many permits there are. It binds while any holder or waiter exists.
    pub fn of(self) -> u32 {
        self.of
    }
}

impl Mode {
    /// One of `of` permits.
    ///
    /// # Errors
    /// `InvalidConfig` when `of` is zero.
    pub fn permit(of: u32) -> Result<Self> {
        Self::permits(1, of)
    }

    /// `count` of `of` permits, all or nothing.
    ///
    /// # Errors
    /// `InvalidConfig` when `count` is zero or exceeds `of`.
    pub fn permits(count: u32, of: u32) -> Result<Self> {
        if count == 0 || count > of {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{count} of {of} permits can never be granted; ask for 1 to {of}"),
            ));
        }
        Ok(Self::Permit(Permits { count, of }))
    }

    /// Whether holders of the two modes can never share a key, nor take turns on it: shared
    /// against permit, or permits of another maximum.
    pub fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Exclusive, _) | (_, Self::Exclusive) | (Self::Shared, Self::Shared) => false,
            (Self::Permit(a), Self::Permit(b)) => a.of != b.of,
            (Self::Shared, Self::Permit(_)) | (Self::Permit(_), Self::Shared) => true,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::Shared => f.write_str("shared"),
            Self::Permit(p) => write!(f, "permit {}/{}", p.count, p.of),
        }
    }
}
