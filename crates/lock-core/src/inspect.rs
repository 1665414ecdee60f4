//! Who holds, who waits, for how long, and why.

use std::time::{Duration, SystemTime};

use crate::fork::ForkLocal;
use crate::{FencingNumber, LockKey, Mode, OwnerId, OwnerToken};

/// Which keys to report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectQuery {
    /// What to look at.
    pub select: Select,
    /// At most this many keys in one page. Default: 100.
    pub page_size: usize,
    /// Where the previous page ended: its [`InspectPage::next`].
    pub after: Option<LockKey>,
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// One key.
    Key(LockKey),
    /// Every key of a namespace that is held or waited for; the empty string for the empty one.
    Namespace(String),
}

impl InspectQuery {
    /// One key.
    #[must_use]
    pub fn key(key: LockKey) -> Self {
        Self {
            select: Select::Key(key),
            page_size: 1,
            after: None,
        }
    }

    /// A namespace, from its start, 100 keys a page.
    #[must_use]
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self {
            select: Select::Namespace(namespace.into()),
            page_size: 100,
            after: None,
        }
    }

    /// Cuts the reports of all keys a backend knows down to this query's page: filters, sorts by
    /// key, and says where the next page starts.
    #[must_use]
    pub fn page_of(&self, mut keys: Vec<KeyReport>) -> InspectPage {
        keys.retain(|report| self.selects(&report.key) && !report.is_idle());
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        let more = keys.len() > self.page_size;
        keys.truncate(self.page_size);
        let next = if more {
            keys.last().map(|report| report.key.clone())
        } else {
            None
        };
        InspectPage { keys, next }
    }

    /// Whether a key belongs to the query and lies behind the previous page.
    pub fn selects(&self, key: &LockKey) -> bool {
        let wanted = match &self.select {
            Select::Key(wanted) => wanted == key,
            Select::Namespace(namespace) => key.namespace() == namespace,
        };
        wanted && self.after.as_ref().is_none_or(|after| key > after)
    }
}

/// Some keys, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct InspectPage {
    /// Keys that are held, waited for, or have a debt, in order.
    pub keys: Vec<KeyReport>,
    /// Pass it as [`InspectQuery::after`] for the next page; `None` on the last one.
    pub next: Option<LockKey>,
}

/// One key as the backend sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyReport {
    /// The key.
    pub key: LockKey,
    /// Who has it.
    pub holders: Vec<PartyRecord>,
    /// Who is queued for it, next one first.
    pub waiters: Vec<PartyRecord>,
    /// Attempts that were given up and whose end is not confirmed yet.
    pub debts: Vec<OwnerToken>,
}

impl KeyReport {
    /// A key that nobody uses.
    #[must_use]
    pub fn idle(key: LockKey) -> Self {
        Self {
            key,
            holders: Vec::new(),
            waiters: Vec::new(),
            debts: Vec::new(),
        }
    }

    /// Whether nobody uses the key.
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty() && self.debts.is_empty()
    }
}

/// A holder or a waiter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartyRecord {
    /// Its attempt.
    pub attempt: OwnerToken,
    /// How it holds, or wants to hold.
    pub mode: Mode,
    /// Its priority.
    pub priority: i8,
    /// Who acquired, if that is known.
    pub owner: Option<OwnerId>,
    /// Where it runs.
    pub process: ProcessRecord,
    /// The caller's line for people.
    pub label: Option<String>,
    /// The caller's opaque bytes.
    pub record: Option<Vec<u8>>,
    /// Holder: since when it holds. Waiter: since when it waits. By the wall clock of its host, or
    /// of the server where there is one.
    pub since: Option<SystemTime>,
    /// An exclusive holder's fencing number.
    pub fencing: Option<FencingNumber>,
    /// How long the lease lasts unless it is renewed; `None` where nothing expires.
    pub remaining: Option<Duration>,
}

impl PartyRecord {
    /// A record with the parts that every backend knows.
    #[must_use]
    pub fn new(attempt: OwnerToken, mode: Mode, process: ProcessRecord) -> Self {
        Self {
            attempt,
            mode,
            priority: 0,
            owner: None,
            process,
            label: None,
            record: None,
            since: None,
            fencing: None,
            remaining: None,
        }
    }
}

/// Where a holder or waiter runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessRecord {
    /// The host's name.
    pub host: String,
    /// The process id, as its own pid namespace numbers it.
    pub pid: u32,
    /// Identifies this boot of the host: records of an earlier one are void.
    pub boot_id: String,
    /// The pid namespace: two containers on one host number their processes independently.
    pub pid_namespace: String,
}

impl ProcessRecord {
    /// This process, read once: it takes three files.
    #[must_use]
    pub fn of_this_process() -> &'static Self {
        static CURRENT: ForkLocal<ProcessRecord> = ForkLocal::new();
        CURRENT.get_or_init(Self::current)
    }

    /// This process.
    #[must_use]
    pub fn current() -> Self {
        // What a platform does not have stays empty; a record is for people, never for exclusion.
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        Self {
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            pid: std::process::id(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            pid_namespace: namespace.map_or_else(
                |_| String::new(),
                |name| name.to_string_lossy().into_owned(),
            ),
        }
    }
}
