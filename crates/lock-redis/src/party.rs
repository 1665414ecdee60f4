//! The record of a holder or waiter, as one line of text in the store.
//!
//! The scripts read the first nine words, see `library.lua`; the rest is for people who inspect.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::fork::ForkLocal;
use lock_core::{LockKey, Mode, OwnerToken, PartyRecord, ProcessRecord, Request};

/// What separates the fields behind the ninth word.
const SEPARATOR: char = '\t';

/// The line of a request. The same at every call with the same arguments: waiters are found by it.
pub(crate) fn line(key: &LockKey, request: &Request, lease: Duration, channel: &str) -> String {
    let mut line = String::with_capacity(320);
    let (mode, count, of) = match request.mode {
        Mode::Exclusive => ('x', 1, 1),
        Mode::Shared => ('s', 1, 1),
        Mode::Permit(permits) => ('p', permits.count(), permits.of()),
    };
    let delay = request.lock_delay.unwrap_or_default().as_millis();
    let _ = write!(
        line,
        "{} {mode} {count} {of} {} {} {delay} {channel} ",
        request.attempt,
        request.priority,
        lease.as_millis()
    );
    match request.owner {
        Some(owner) => drop(write!(line, "{owner} ")),
        None => line.push_str("- "),
    }
    line.push_str(process());
    line.push(SEPARATOR);
    // A name that is not stored as it is would be lost otherwise.
    if key.encoded().contains('~') {
        escape(&mut line, key.qualified());
    }
    line.push(SEPARATOR);
    if let Some(label) = &request.label {
        line.push('=');
        escape(&mut line, label);
    }
    line.push(SEPARATOR);
    if let Some(record) = &request.record {
        line.push('=');
        for byte in record.iter() {
            let _ = write!(line, "{byte:02x}");
        }
    }
    line
}

/// What a line says. `None` for one that this version cannot read.
pub(crate) fn read(line: &str) -> Option<(PartyRecord, Option<LockKey>)> {
    let mut words = line.splitn(10, ' ');
    let attempt: OwnerToken = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let count: u32 = words.next()?.parse().ok()?;
    let of: u32 = words.next()?.parse().ok()?;
    let mode = match kind {
        "x" => Mode::Exclusive,
        "s" => Mode::Shared,
        "p" => Mode::permits(count, of).ok()?,
        _ => return None,
    };
    let priority = words.next()?.parse().ok()?;
    let _lease_delay_channel = (words.next()?, words.next()?, words.next()?);
    let owner = words.next()?.parse().ok();
    let mut fields = words.next()?.split(SEPARATOR);
    let mut process = ProcessRecord::default();
    process.host = unescape(fields.next()?);
    process.pid = fields.next()?.parse().ok()?;
    process.boot_id = unescape(fields.next()?);
    process.pid_namespace = unescape(fields.next()?);
    let key = LockKey::from_qualified(&unescape(fields.next()?)).ok();
    let mut record = PartyRecord::new(attempt, mode, process);
    record.priority = priority;
    record.owner = owner;
    record.label = fields.next()?.strip_prefix('=').map(unescape);
    record.record = fields.next()?.strip_prefix('=').and_then(unhex);
    Some((record, key))
}

/// This process, rendered once.
fn process() -> &'static str {
    static LINE: ForkLocal<String> = ForkLocal::new();
    LINE.get_or_init(|| {
        let process = ProcessRecord::current();
        let mut line = String::new();
        escape(&mut line, &process.host);
        let _ = write!(line, "{SEPARATOR}{}{SEPARATOR}", process.pid);
        escape(&mut line, &process.boot_id);
        line.push(SEPARATOR);
        escape(&mut line, &process.pid_namespace);
        line
    })
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '\t' => out.push_str("%09"),
            '\n' => out.push_str("%0a"),
            '\r' => out.push_str("%0d"),
            c => out.push(c),
        }
    }
}

fn unescape(text: &str) -> String {
    // `%25` last, or it would make new escapes.
    text.replace("%09", "\t")
        .replace("%0a", "\n")
        .replace("%0d", "\r")
        .replace("%25", "%")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect()
}

/// Microseconds of the server's clock since 2024 as a wall time.
pub(crate) fn wall_time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(EPOCH) + Duration::from_micros(micros)
}

/// 2024-01-01 in Unix seconds, where the scripts count from.
pub(crate) const EPOCH: u64 = 1_704_067_200;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lock_core::{OwnerId, Wait};

    use super::*;

    #[test]
    fn a_line_reads_back() {
        let key = LockKey::new("Odd \t%25 name").unwrap();
        let mut request = Request::new(
            OwnerToken::mint(),
            Mode::permits(2, 5).unwrap(),
            Wait::Forever,
        );
        request.priority = -7;
        request.owner = Some(OwnerId::new());
        request.label = Some("100 %09\n\tlabel".into());
        request.record = Some(Arc::from(&b"\0\xffbytes "[..]));
        let line = line(&key, &request, Duration::from_secs(30), "lock:c:1");
        let (record, read_key) = read(&line).unwrap();
        assert_eq!(read_key, Some(key));
        assert_eq!(record.attempt, request.attempt);
        assert_eq!(record.mode, request.mode);
        assert_eq!(record.priority, -7);
        assert_eq!(record.owner, request.owner);
        assert_eq!(record.label.as_deref(), request.label.as_deref());
        assert_eq!(record.record.as_deref(), request.record.as_deref());
        assert_eq!(record.process, ProcessRecord::current());
    }
}
