//! Removing the files of keys that nobody uses.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lock_core::Result;
use lock_core::host::{LockFile, LockKind};
use rustix::io::Errno;

use crate::backend::Shared;
use crate::error::failed;
use crate::key_file::KeyFile;
use crate::names::{LOCK, Names};
use crate::numbers::{Numbers, micros};
use crate::turnstile::Turnstile;

/// Removes the files of every key that was not used for a while. Returns how many keys that were.
///
/// Deleting lock files is the classic race: two processes lock two files of one name. It is none
/// here, because a file is removed only under its own lock, and whoever gets a lock looks whether
/// the path still leads to it. Fencing numbers do not go back, because the directory's own file says
/// where a new one starts.
pub(crate) fn sweep(shared: &Arc<Shared>, unused_for: Duration) -> Result<usize> {
    let directory = shared.table().directory();
    let path = directory.path();
    let entries = std::fs::read_dir(path).map_err(|source| failed("list", path, source))?;
    let mut swept = 0;
    for entry in entries {
        let entry = entry.map_err(|source| failed("list", path, source))?;
        let name = entry.file_name();
        if let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(LOCK)) {
            let names = Names::of_stem(directory, stem);
            swept += usize::from(sweep_key(&names, unused_for)?);
        }
    }
    Ok(swept)
}

fn sweep_key(names: &Names, unused_for: Duration) -> Result<bool> {
    let Some(mut lock) = KeyFile::open_existing(names.lock())? else {
        return Ok(false);
    };
    if last_use(names, &lock)?.is_none_or(|age| age < unused_for) {
        return Ok(false);
    }
    // No break puts another file there meanwhile.
    let numbers = &names.directory().numbers;
    let alone = numbers.alone()?;
    // Before the lock is taken, for it may force a write to the disk.
    make_room_for(numbers, lock.door()?.head.base, &alone)?;
    if !lock.try_lock(LockKind::Exclusive)? {
        return Ok(false);
    }
    let mut turnstile = Turnstile::existing(names)?;
    let free = turnstile.is_unused() || turnstile.enter(names, &lock)?;
    let mut outcome = Ok(false);
    // Used in between, it has a higher number, and stays.
    if free && lock.is_current() && lock.door()?.head.base < numbers.floor() {
        outcome = remove(names).map(|()| true);
    }
    turnstile.leave(Some(&mut lock));
    lock.unlock();
    outcome
}

/// A new file of the key has to start behind `base`. One forced write is enough for many keys, as
/// the numbers of most follow the clock.
fn make_room_for(numbers: &Numbers, base: u64, alone: &LockFile) -> Result<()> {
    if base < numbers.floor() {
        return Ok(());
    }
    numbers.start_behind(base.max(micros(SystemTime::now())), alone)
}

/// How long ago the key was used last. Mapped pages do not count as written before the system
/// writes them back, but the record says since when its holder held.
fn last_use(names: &Names, lock: &KeyFile) -> Result<Option<Duration>> {
    let holder = lock.record()?.and_then(|(_, body)| body?.holder);
    let written = |path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    };
    let slots = names.slots_on_disk().into_iter();
    let latest = slots
        .filter_map(|number| written(names.slot(number)))
        .chain(written(names.lock()))
        .chain(holder.and_then(|holder| holder.since))
        .max();
    Ok(latest.map(|at| SystemTime::now().duration_since(at).unwrap_or_default()))
}

fn remove(names: &Names) -> Result<()> {
    let slots = names
        .slots_on_disk()
        .into_iter()
        .map(|number| names.slot(number));
    for path in slots.chain([names.turn(), names.lock()]) {
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove", &path, errno)),
        }
    }
    Ok(())
}
