//! Numbered files of one key: permits, and the records of shared holders.

use std::collections::BTreeMap;

use lock_core::Result;
use lock_core::host::{LockFile, LockKind};
use smallvec::SmallVec;

use crate::names::Names;
use crate::writing;

/// The slots that this process has. The kernel's lock on a slot file means that it is taken.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    taken: BTreeMap<u32, LockFile>,
}

/// The numbers of some slots, in order.
pub(crate) type Numbers = SmallVec<[u32; 1]>;

impl Slots {
    /// Takes the `count` lowest free slots of `of`, all or nothing. Call it in turn, if
    /// it may take several.
    pub(crate) fn take(&mut self, names: &Names, count: u32, of: u32) -> Result<Option<Numbers>> {
        let mut found: SmallVec<[(u32, LockFile); 1]> = SmallVec::new();
        for number in 0..of {
            if self.taken.contains_key(&number) {
                continue;
            }
            if let Some(file) = lock(names, number)? {
                found.push((number, file));
            }
            if found.len() == count as usize {
                let numbers = found.iter().map(|(number, _)| *number).collect();
                self.taken.extend(found);
                return Ok(Some(numbers));
            }
        }
        Ok(None)
    }

    /// Writes who has a slot.
    pub(crate) fn describe(&self, number: u32, body: &[u8]) -> Result<()> {
        match self.taken.get(&number) {
            Some(slot) => writing::describe(slot, body),
            None => Ok(()),
        }
    }

    /// Gives slots back.
    pub(crate) fn free(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.taken.remove(number);
        }
    }

    pub(crate) fn free_all(&mut self) {
        self.taken.clear();
    }

    /// The slots whose files were deleted or replaced, by a look of this kind.
    pub(crate) fn lost(&self, is_there: impl Fn(&LockFile) -> bool) -> Numbers {
        let gone = self.taken.iter().filter(|(_, file)| !is_there(file));
        gone.map(|(number, _)| *number).collect()
    }

    pub(crate) fn numbers(&self) -> Numbers {
        self.taken.keys().copied().collect()
    }
}

fn lock(names: &Names, number: u32) -> Result<Option<LockFile>> {
    loop {
        let mut file = LockFile::open(names.slot(number))?;
        if !file.try_lock(LockKind::Exclusive)? {
            return Ok(None);
        }
        if file.is_current() {
            return Ok(Some(file));
        }
    }
}
