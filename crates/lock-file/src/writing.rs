//! What is written into the files of a key.

use std::time::SystemTime;

use lock_core::host::LockFile;
use lock_core::{ErrorKind, FencingNumber, LockKey, Result};

use crate::error::error;
use crate::kernel::Asker;
use crate::key_file::KeyFile;
use crate::numbers::Numbers;
use crate::record::{self, Body, Bytes, Discipline, Head, Holder};

/// Draws the number that follows those in `before`, and writes down who has it.
pub(crate) fn number_holder(
    file: &KeyFile,
    before: Head,
    numbers: &Numbers,
    asker: Asker<'_>,
    since: SystemTime,
) -> Result<FencingNumber> {
    let base = numbers.next(before.base, since)?;
    let number = FencingNumber::from_base(base).ok_or_else(|| {
        error(
            ErrorKind::Backend,
            format!(
                "the fencing numbers in {} are used up; delete the directory while nobody holds a \
                 lock in it, and raise the fencing epoch",
                file.path().display()
            ),
        )
    })?;
    let head = Head {
        sequence: before.sequence + 1,
        base,
        discipline: before.discipline,
    };
    file.write(&head, &holder_body(asker, since, Some(number)))?;
    Ok(number)
}

pub(crate) fn write_vacant(
    file: &KeyFile,
    before: Head,
    discipline: Discipline,
    key: &LockKey,
) -> Result<()> {
    let head = Head {
        sequence: before.sequence + 1,
        base: before.base,
        discipline,
    };
    file.write(&head, &record::vacant(key))
}

pub(crate) fn holder_body(
    asker: Asker<'_>,
    since: SystemTime,
    fencing: Option<FencingNumber>,
) -> Bytes {
    let holder = Holder {
        request: asker.request,
        since,
        fencing,
    };
    Body::encode(asker.key, Some(holder))
}

/// Writes a record into a file that has nothing else.
pub(crate) fn describe(file: &LockFile, body: &[u8]) -> Result<()> {
    let before = record::read_head(file)?;
    let head = Head {
        sequence: before.sequence + 1,
        ..Head::default()
    };
    record::write(file, &head, body)
}
