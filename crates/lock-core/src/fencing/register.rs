//! The checker for a resource in memory.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::FencingToken;

/// A write was refused because a newer holder has written already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleToken {
    /// The token that came late.
    pub shown: FencingToken,
    /// The highest one the resource has seen.
    pub highest: FencingToken,
}

impl fmt::Display for StaleToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fencing token {} is stale, {} has written already",
            self.shown, self.highest
        )
    }
}

impl std::error::Error for StaleToken {}

/// A value that only takes writes whose fencing token is not behind.
///
/// Comparing and writing are one step: a writer that passed the check cannot be overtaken before
/// its write.
#[derive(Debug, Default)]
pub struct FencedRegister<T> {
    state: Mutex<(Option<FencingToken>, T)>,
}

impl<T> FencedRegister<T> {
    /// A register that no token has touched.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            state: Mutex::new((None, value)),
        }
    }

    /// Runs `change` on the value unless a higher token has been here; the same token may return.
    ///
    /// # Errors
    /// [`StaleToken`], and the value is as it was.
    pub fn write<R>(
        &self,
        token: FencingToken,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, StaleToken> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        check(state.0, token)?;
        state.0 = Some(token);
        Ok(change(&mut state.1))
    }

    /// Runs `look` on the value.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

/// The rule: a token may write if it is at least the highest one seen.
pub(super) fn check(highest: Option<FencingToken>, shown: FencingToken) -> Result<(), StaleToken> {
    match highest {
        Some(highest) if shown < highest => Err(StaleToken { shown, highest }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FencingNumber;

    #[test]
    fn a_late_writer_is_refused_and_changes_nothing() {
        let token = |base| FencingToken::new(0, FencingNumber::from_base(base).unwrap());
        let register = FencedRegister::new(0);
        register.write(token(2), |v| *v = 2).unwrap();
        let refused = register.write(token(1), |v| *v = 1).unwrap_err();
        assert_eq!((refused.shown, refused.highest), (token(1), token(2)));
        register.write(token(2), |v| *v += 1).unwrap();
        assert_eq!(register.read(|v| *v), 3);
    }
}
