//! Who acquires: the identity that deadlock detection reasons about.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorKind, ProcessNonce};

/// Where an [`OwnerId`] comes from, and so how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerOrigin {
    /// Made by [`OwnerId::new`] and passed on purpose: a cycle of these is a deadlock.
    Explicit,
    /// Inferred from the running tokio task. Branches of one `select!` or `join!` share it, and a
    /// guard may move to another task, so a cycle is a suspicion.
    Task,
    /// Inferred from the running thread; a suspicion likewise.
    Thread,
}

/// Whoever waits for one lock while holding another: a request, a job, a task.
///
/// Qualified by its process, so that owners of two processes can stand in one wait-for graph.
///
/// ```
/// use lock_core::{AcquireOptions, OwnerId};
///
/// let job = OwnerId::new();
/// let options = AcquireOptions::new().owner(job);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerId {
    process: ProcessNonce,
    origin: OwnerOrigin,
    number: u64,
}

impl Hash for OwnerId {
    /// The number alone, which tells apart almost all owners of a table.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.number);
    }
}

impl OwnerId {
    /// A new explicit owner.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each owner is another one")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            process: ProcessNonce::current(),
            origin: OwnerOrigin::Explicit,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The running tokio task, or else the running thread.
    #[must_use]
    pub fn current() -> Self {
        Self::running_in(ProcessNonce::current())
    }

    /// The same, for a caller that knows the process already.
    pub(crate) fn running_in(process: ProcessNonce) -> Self {
        let (origin, number) = match tokio::task::try_id() {
            Some(id) => (OwnerOrigin::Task, task_number(id)),
            None => (OwnerOrigin::Thread, thread_number()),
        };
        Self {
            process,
            origin,
            number,
        }
    }

    /// What tells apart the owners of one process.
    pub(crate) fn parts(self) -> (OwnerOrigin, u64) {
        (self.origin, self.number)
    }

    pub(crate) fn from_parts(process: ProcessNonce, origin: OwnerOrigin, number: u64) -> Self {
        Self {
            process,
            origin,
            number,
        }
    }

    /// Where the identity comes from.
    pub fn origin(self) -> OwnerOrigin {
        self.origin
    }

    /// The process it belongs to.
    pub fn process(self) -> ProcessNonce {
        self.process
    }
}

/// The number inside a task id, which gives it out as text or to a hasher, and only the latter
/// without an allocation.
fn task_number(id: tokio::task::Id) -> u64 {
    struct Number(u64);
    impl Hasher for Number {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0 << 8 | u64::from(*byte);
            }
        }
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }
    let mut number = Number(0);
    id.hash(&mut number);
    number.finish()
}

fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            OwnerOrigin::Explicit => "owner",
            OwnerOrigin::Task => "task",
            OwnerOrigin::Thread => "thread",
        };
        write!(f, "{origin}-{:x}@{}", self.number, self.process)
    }
}

impl FromStr for OwnerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::new(ErrorKind::Backend, format!("`{text}` is no owner"));
        let (local, process) = text.split_once('@').ok_or_else(malformed)?;
        let (origin, number) = local.split_once('-').ok_or_else(malformed)?;
        let origin = match origin {
            "owner" => OwnerOrigin::Explicit,
            "task" => OwnerOrigin::Task,
            "thread" => OwnerOrigin::Thread,
            _ => return Err(malformed()),
        };
        let number = u64::from_str_radix(number, 16).map_err(|_| malformed())?;
        Ok(Self {
            process: process.parse()?,
            origin,
            number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_task_is_the_one_that_its_id_shows() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let task = async { (OwnerId::current(), tokio::task::id()) };
        let (owner, id) = runtime
            .unwrap()
            .block_on(async { tokio::spawn(task).await.unwrap() });
        assert_eq!(owner.origin(), OwnerOrigin::Task);
        assert_eq!(owner.number.to_string(), id.to_string());
    }

    #[test]
    fn owners_are_distinct_and_read_back() {
        let (a, b) = (OwnerId::new(), OwnerId::new());
        assert_ne!(a, b);
        assert_eq!(a.to_string().parse::<OwnerId>().unwrap(), a);
        assert_eq!(OwnerId::current(), OwnerId::current());
        assert_eq!(OwnerId::current().origin(), OwnerOrigin::Thread);
    }
}
