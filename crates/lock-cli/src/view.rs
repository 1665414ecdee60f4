//! Holders and waiters in a form for JSON and for people.

use std::time::{Duration, SystemTime};

use lock_core::{KeyReport, Mode, OwnerToken, PartyRecord};
use serde::Serialize;

/// One key.
#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    pub(crate) key: String,
    pub(crate) namespace: String,
    pub(crate) holders: Vec<PartyView>,
    pub(crate) waiters: Vec<PartyView>,
    /// Attempts that were given up and whose end is not confirmed yet.
    pub(crate) debts: Vec<String>,
}

/// A holder or a waiter.
#[derive(Debug, Serialize)]
pub(crate) struct PartyView {
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) mode: &'static str,
    /// Permits taken and permits there are, for mode `permit`.
    pub(crate) permits: Option<PermitsView>,
    pub(crate) label: Option<String>,
    /// RFC 3339, in UTC.
    pub(crate) since: Option<String>,
    pub(crate) seconds: Option<f64>,
    pub(crate) priority: i8,
    pub(crate) fencing_number: Option<u64>,
    /// Seconds until the lease ends unless it is renewed.
    pub(crate) lease_seconds: Option<f64>,
    pub(crate) owner: Option<String>,
    pub(crate) attempt: String,
    pub(crate) boot_id: String,
    pub(crate) pid_namespace: String,
    /// The caller's bytes, in hexadecimal.
    pub(crate) record: Option<String>,
}

/// `count` of `of` permits.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PermitsView {
    pub(crate) count: u32,
    pub(crate) of: u32,
}

impl KeyView {
    /// The view of a report.
    pub(crate) fn new(report: &KeyReport) -> Self {
        Self {
            key: report.key.name().to_owned(),
            namespace: report.key.namespace().to_owned(),
            holders: report.holders.iter().map(PartyView::new).collect(),
            waiters: report.waiters.iter().map(PartyView::new).collect(),
            debts: report.debts.iter().map(OwnerToken::to_string).collect(),
        }
    }

    /// The key for people, with its namespace, and without characters that a terminal obeys.
    pub(crate) fn name(&self) -> String {
        match self.namespace.as_str() {
            "" => printable(&self.key),
            namespace => format!("{namespace}:{}", printable(&self.key)),
        }
    }
}

impl PartyView {
    /// The view of a holder or waiter.
    pub(crate) fn new(party: &PartyRecord) -> Self {
        let permits = match party.mode {
            Mode::Permit(permits) => Some(PermitsView {
                count: permits.count(),
                of: permits.of(),
            }),
            Mode::Exclusive | Mode::Shared => None,
        };
        Self {
            host: party.process.host.clone(),
            pid: party.process.pid,
            mode: mode_name(party.mode),
            permits,
            label: party.label.clone(),
            since: party
                .since
                .map(|since| humantime::format_rfc3339_millis(since).to_string()),
            seconds: party.since.map(|since| elapsed(since).as_secs_f64()),
            priority: party.priority,
            fencing_number: party.fencing.map(|number| number.get()),
            lease_seconds: party.remaining.map(|left| left.as_secs_f64()),
            owner: party.owner.map(|owner| owner.to_string()),
            attempt: party.attempt.to_string(),
            boot_id: party.process.boot_id.clone(),
            pid_namespace: party.process.pid_namespace.clone(),
            record: party.record.as_deref().map(hex),
        }
    }

    /// One line that says who and for how long.
    pub(crate) fn in_short(&self) -> String {
        let Self { host, pid, .. } = self;
        let label = match self.label_for_people() {
            label if label.is_empty() => label,
            label => format!(" ({label})"),
        };
        format!("pid {pid} on {host}{label} for {}", self.age())
    }

    /// `exclusive`, `shared`, or `permit 1/3`.
    pub(crate) fn mode_for_people(&self) -> String {
        match self.permits {
            Some(PermitsView { count, of }) => format!("{} {count}/{of}", self.mode),
            None => self.mode.to_owned(),
        }
    }

    /// Since when, as an age: `3m 20s`.
    pub(crate) fn age(&self) -> String {
        self.seconds.map_or_else(|| "-".to_owned(), age)
    }

    /// The label without characters that a terminal obeys: anybody may have written it.
    pub(crate) fn label_for_people(&self) -> String {
        self.label.as_deref().map_or_else(String::new, printable)
    }
}

/// The mode's name in output and in `LOCK_MODE`.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
        Mode::Permit(_) => "permit",
    }
}

/// How long ago; zero when another host's clock is ahead of ours.
fn elapsed(since: SystemTime) -> Duration {
    SystemTime::now().duration_since(since).unwrap_or_default()
}

/// A number of seconds in two units at most.
fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if whole < 10 => format!("{seconds:.1}s"),
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m {}s", whole % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_at_most() {
        let cases = [
            (0.25, "0.2s"),
            (42.9, "42s"),
            (200.0, "3m 20s"),
            (7_260.0, "2h 1m"),
            (90_000.0, "1d 1h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn what_others_wrote_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
