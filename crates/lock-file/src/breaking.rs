//! Taking a lock away from its holder, for an operator.

use std::sync::Arc;

use lock_core::{InspectQuery, LockKey, Mode, OwnerToken, PartyRecord, Result};

use crate::backend::Shared;
use crate::error::failed;
use crate::inspect;
use crate::key_file::KeyFile;
use crate::names::Names;
use crate::record::{self, Head};
use crate::turnstile::Turnstile;
use lock_core::host::LockFile;

/// Fencing numbers of a broken holder must stay below those of its successor, also if it passes the
/// lock on once more before it notices: a second's worth of numbers is left out.
const NUMBERS_LEFT_OUT: u64 = 1_000_000;

/// Takes the lock away from every holder, or from one attempt. Returns how many were broken.
///
/// A kernel lock cannot be taken from another process, so its file is replaced: the lock on the old
/// file excludes nobody any more. The holder notices within its next look at the file, a stopped
/// one as soon as it runs again; until then only its fencing token stops it.
pub(crate) fn break_lock(
    shared: &Arc<Shared>,
    key: &LockKey,
    attempt: Option<OwnerToken>,
) -> Result<usize> {
    if let Some(attempt) = attempt
        && shared.on_key(key, |state| state.revoke(key, attempt)) == Some(true)
    {
        return Ok(1);
    }
    let page = inspect::page(shared, &InspectQuery::key(key.clone()))?;
    let holders = page.keys.into_iter().flat_map(|report| report.holders);
    let targets: Vec<PartyRecord> = holders
        .filter(|holder| attempt.is_none_or(|attempt| holder.attempt == attempt))
        .collect();
    let Some(first) = targets.first() else {
        return Ok(0);
    };
    let names = Names::of(shared.table().directory(), key);
    // No sweep removes meanwhile what this puts there.
    let _alone = names.directory().numbers.alone()?;
    match attempt {
        Some(attempt) if first.mode != Mode::Exclusive => {
            remove_slots(&names, |holder| holder == attempt)?;
        }
        _ => {
            replace_lock(&names, key)?;
            remove_slots(&names, |_| true)?;
        }
    }
    // The holders here hear of it now, the others at their next look.
    shared.on_key(key, |state| ((), state.check(key)));
    wake_all(&names)?;
    Ok(targets.len())
}

fn replace_lock(names: &Names, key: &LockKey) -> Result<()> {
    let Some(mut old) = KeyFile::open_existing(names.lock())? else {
        return Ok(());
    };
    let before = old.door()?.head;
    let head = Head {
        sequence: before.sequence + 1,
        base: before.base + NUMBERS_LEFT_OUT,
        discipline: before.discipline,
    };
    let path = names.replacement();
    let new = KeyFile::create_new(path.clone())?;
    let written = new.write(&head, &record::vacant(key));
    let replaced = written.and_then(|()| {
        rustix::fs::rename(&path, names.lock()).map_err(|errno| failed("rename", &path, errno))
    });
    if replaced.is_err() {
        let _ = rustix::fs::unlink(&path);
    }
    // Who waits, waits for the bells of the old file.
    old.ring_all(Turnstile::existing(names)?.turn());
    replaced
}

/// Removes the slots of some holders; whoever takes such a slot next makes its file anew.
fn remove_slots(names: &Names, of: impl Fn(OwnerToken) -> bool) -> Result<()> {
    for number in names.slots_on_disk() {
        let path = names.slot(number);
        let Some(slot) = LockFile::open_existing(path.clone())? else {
            continue;
        };
        let holder = record::holder(&slot)?;
        if holder.is_some_and(|holder| of(holder.attempt)) && slot.is_current() {
            rustix::fs::unlink(&path).map_err(|errno| failed("remove", &path, errno))?;
        }
    }
    Ok(())
}

fn wake_all(names: &Names) -> Result<()> {
    if let Some(mut lock) = KeyFile::open_existing(names.lock())? {
        lock.ring_all(Turnstile::existing(names)?.turn());
    }
    Ok(())
}
