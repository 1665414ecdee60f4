//! What a holder's or waiter's record says: JSON, so that a person can read it with `etcdctl`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::{Mode, PartyRecord, ProcessRecord, Request};
use serde::{Deserialize, Serialize};

/// The version of the format. A reader refuses a later one.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The qualified key: names in the store may be hashed.
    pub(crate) key: String,
    /// How many permits; 0 for other modes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) count: u32,
    /// Which permits a holder has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slots: Vec<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) priority: i8,
    /// How often a waiter was overtaken by one who came later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) bypassed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// The caller's bytes, as two digits each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    /// Milliseconds since 1970.
    since: u64,
    process: Process,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    host: String,
    pid: u32,
    boot_id: String,
    pid_namespace: String,
}

impl Record {
    pub(crate) fn new(key: &lock_core::LockKey, request: &Request, process: &Process) -> Self {
        let count = match request.mode {
            Mode::Permit(permits) => permits.count(),
            Mode::Exclusive | Mode::Shared => 0,
        };
        Self {
            version: VERSION,
            key: key.qualified().to_owned(),
            count,
            slots: (0..count).collect(),
            priority: request.priority,
            bypassed: 0,
            owner: request.owner.map(|owner| owner.to_string()),
            label: request.label.as_deref().map(str::to_owned),
            record: request.record.as_deref().map(hex),
            since: now(),
            process: process.clone(),
        }
    }

    /// `None` for what this version cannot read.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(value).ok()?;
        (record.version <= VERSION).then_some(record)
    }

    /// Stands for a record that this version cannot read.
    pub(crate) fn unreadable(key: &lock_core::LockKey) -> Self {
        Self {
            version: VERSION,
            key: key.qualified().to_owned(),
            count: 0,
            slots: Vec::new(),
            priority: 0,
            bypassed: 0,
            owner: None,
            label: None,
            record: None,
            since: 0,
            process: Process::default(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers always have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The record of this party as a holder from now on.
    pub(crate) fn holding(&self, slots: Vec<u32>) -> Self {
        Self {
            slots,
            bypassed: 0,
            since: now(),
            ..self.clone()
        }
    }

    /// The record under another owner, in another process.
    pub(crate) fn owned_by(&self, owner: Option<lock_core::OwnerId>, process: &Process) -> Self {
        Self {
            owner: owner.map(|owner| owner.to_string()),
            process: process.clone(),
            ..self.clone()
        }
    }

    pub(crate) fn to_party(&self, attempt: lock_core::OwnerToken, mode: Mode) -> PartyRecord {
        let mut party = PartyRecord::new(attempt, mode, self.process.to_record());
        party.priority = self.priority;
        party.owner = self.owner.as_ref().and_then(|owner| owner.parse().ok());
        party.label.clone_from(&self.label);
        party.record = self.record.as_deref().and_then(unhex);
        party.since = UNIX_EPOCH.checked_add(Duration::from_millis(self.since));
        party
    }
}

impl Process {
    pub(crate) fn current() -> Self {
        let process = ProcessRecord::current();
        Self {
            host: process.host,
            pid: process.pid,
            boot_id: process.boot_id,
            pid_namespace: process.pid_namespace,
        }
    }

    fn to_record(&self) -> ProcessRecord {
        let mut record = ProcessRecord::default();
        record.host.clone_from(&self.host);
        record.pid = self.pid;
        record.boot_id.clone_from(&self.boot_id);
        record.pid_namespace.clone_from(&self.pid_namespace);
        record
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let pairs = digits?;
    Some(
        pairs
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use lock_core::{LockKey, OwnerId, OwnerToken, Wait};

    use super::*;

    #[test]
    fn a_record_reads_back_as_what_a_person_asked_for() {
        let mode = Mode::permits(2, 5).unwrap();
        let mut request = Request::new(OwnerToken::mint(), mode, Wait::Forever);
        request.priority = -7;
        request.owner = Some(OwnerId::new());
        request.label = Some("nightly".into());
        request.record = Some([0, 255, 16].as_slice().into());
        let key = LockKey::new("a").unwrap();
        let record = Record::new(&key, &request, &Process::current());
        let read = Record::parse(&record.to_bytes()).unwrap();
        assert_eq!(read, record);
        let party = read.to_party(request.attempt, mode);
        assert_eq!((party.priority, party.owner), (-7, request.owner));
        assert_eq!(party.record.as_deref(), Some([0, 255, 16].as_slice()));
        assert_eq!(party.process, ProcessRecord::current());
    }

    #[test]
    fn a_later_version_is_not_guessed_at() {
        assert_eq!(
            Record::parse(br#"{"version":2,"key":":a","since":0}"#),
            None
        );
        assert_eq!(Record::parse(b"foreign"), None);
    }
}
