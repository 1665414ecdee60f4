//! What is written into the files of a key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::{ErrorKind, FencingNumber, LockKey, Result};

use crate::error::error;
use crate::kernel::Asker;
use crate::record::{self, Body, Discipline, Head, Holder};
use lock_core::host::LockFile;

/// Draws the next number for an exclusive holder, and writes both down.
pub(crate) fn number_holder(lock: &LockFile, asker: Asker<'_>) -> Result<FencingNumber> {
    let before = record::read_head(lock.file(), lock.path())?;
    let base = next_base(before.base, wall_micros());
    let number = FencingNumber::from_base(base).ok_or_else(|| {
        error(
            ErrorKind::Backend,
            format!(
                "the fencing numbers in {} are used up; delete it while nobody holds the lock, and \
                 raise the fencing epoch",
                lock.path().display()
            ),
        )
    })?;
    let head = Head {
        sequence: before.sequence + 1,
        base,
        discipline: before.discipline,
    };
    let body = holder_body(asker, Some(number));
    record::write(lock.file(), lock.path(), &head, &body)?;
    Ok(number)
}

/// The clock is a floor: numbers rise also when the file was deleted, or when the last writes were
/// lost with the power, as long as the wall clock was not set back meanwhile. A clock beyond all
/// numbers is no floor, for no lock could be granted until it was set right.
fn next_base(before: u64, wall: u64) -> u64 {
    let next = before.saturating_add(1);
    if wall > FencingNumber::MAX_BASE {
        next
    } else {
        next.max(wall)
    }
}

pub(crate) fn write_vacant(
    lock: &LockFile,
    before: Head,
    discipline: Discipline,
    key: &LockKey,
) -> Result<()> {
    let head = Head {
        sequence: before.sequence + 1,
        base: before.base,
        discipline,
    };
    record::write(lock.file(), lock.path(), &head, &record::vacant(key))
}

pub(crate) fn holder_body(asker: Asker<'_>, fencing: Option<FencingNumber>) -> Vec<u8> {
    let holder = Holder {
        request: asker.request,
        since: asker.since,
        fencing,
    };
    Body::encode(asker.key, Some(holder))
}

pub(crate) fn describe(file: &LockFile, asker: Asker<'_>) -> Result<()> {
    let before = record::read_head(file.file(), file.path())?;
    let head = Head {
        sequence: before.sequence + 1,
        ..Head::default()
    };
    record::write(file.file(), file.path(), &head, &holder_body(asker, None))
}

/// Microseconds of the wall clock since the start of 2024, which fit a fencing base until 2095.
///
/// No key is granted a million times in a second, so numbers never run ahead of this clock.
fn wall_micros() -> u64 {
    const START_OF_2024: Duration = Duration::from_secs(1_704_067_200);
    let now = SystemTime::now().duration_since(UNIX_EPOCH + START_OF_2024);
    now.map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_a_floor_unless_it_is_far_off() {
        assert_eq!(next_base(5, 3), 6);
        assert_eq!(next_base(5, 9), 9);
        assert_eq!(next_base(5, FencingNumber::MAX_BASE + 1), 6);
        assert_eq!(
            next_base(FencingNumber::MAX_BASE, 9),
            FencingNumber::MAX_BASE + 1
        );
    }
}
