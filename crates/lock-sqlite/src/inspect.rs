//! Who holds, who waits: what the rows of living sessions say.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lock_core::clock::Instant;
use lock_core::fork::undisturbed;
use lock_core::{
    FencingNumber, InspectPage, InspectQuery, KeyReport, LockKey, OwnerId, OwnerToken, PartyRecord,
    ProcessNonce, ProcessRecord, Result, Select,
};

use crate::line::read_mode;
use crate::office::{Office, closed};
use crate::sql;

/// One row: a holder or waiter of a key.
struct Found {
    key: String,
    session: i64,
    waits: bool,
    party: PartyRecord,
}

/// A page of what the database says.
///
/// # Blocking
/// While the connection is at work.
pub(crate) fn page(office: &Arc<Office>, query: &InspectQuery) -> Result<InspectPage> {
    let (from, to) = range(&query.select);
    let found = {
        let _calm = undisturbed();
        let engine = office.engine();
        let database = engine.as_ref().ok_or_else(closed)?;
        database.be_patient(office.busy_limit());
        let found = database.all(sql::INSPECT, (&from, &to), read);
        found.map_err(|source| office.failed(source))?
    };
    let mut alive = HashMap::new();
    let mut reports: Vec<KeyReport> = Vec::new();
    for row in found {
        let lives = |session: &mut i64| office.session().is_alive(*session);
        let mut session = row.session;
        if !*alive.entry(session).or_insert_with(|| lives(&mut session)) {
            continue;
        }
        let Ok(key) = LockKey::from_qualified(&row.key) else {
            continue;
        };
        if reports.last().is_none_or(|report| report.key != key) {
            reports.push(KeyReport::idle(key));
        }
        let Some(report) = reports.last_mut() else {
            continue;
        };
        match row.waits {
            true => report.waiters.push(row.party),
            false => report.holders.push(row.party),
        }
    }
    add_debts(office, &mut reports);
    Ok(query.page_of(reports))
}

fn add_debts(office: &Office, reports: &mut Vec<KeyReport>) {
    for (attempt, key) in office.attempts().owed() {
        match reports.iter_mut().find(|report| report.key == key) {
            Some(report) => report.debts.push(attempt),
            None => {
                let mut report = KeyReport::idle(key);
                report.debts.push(attempt);
                reports.push(report);
            }
        }
    }
}

/// The names that a query is about, as a range.
fn range(select: &Select) -> (String, String) {
    match select {
        Select::Key(key) => {
            let name = key.qualified();
            // The next text after a name, in the order of its bytes.
            (name.to_owned(), format!("{name}\0"))
        }
        // `;` comes right after `:`.
        Select::Namespace(namespace) => (format!("{namespace}:"), format!("{namespace};")),
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let nonce: [u8; 16] = row.get(14)?;
    let nonce = ProcessNonce::from_bits(u128::from_be_bytes(nonce));
    let attempt = OwnerToken::from_parts(nonce, row.get::<_, i64>(2)? as u64);
    let mode = read_mode(row.get(4)?, row.get(5)?, row.get(6)?);
    let mut process = ProcessRecord::default();
    process.pid = row.get(15)?;
    process.host = row.get(16)?;
    process.boot_id = row.get(17)?;
    process.pid_namespace = row.get(18)?;
    let mut party = PartyRecord::new(attempt, mode, process);
    party.priority = row.get(7)?;
    party.since = row
        .get::<_, Option<i64>>(8)?
        .map(|micros| UNIX_EPOCH + Duration::from_micros(micros as u64));
    let expires: Option<i64> = row.get(9)?;
    party.remaining = expires.map(|nanos| Instant::from_nanos(nanos as u64).remaining());
    let owner: Option<String> = row.get(10)?;
    party.owner = owner.and_then(|owner| OwnerId::from_str(&owner).ok());
    party.label = row.get(11)?;
    party.record = row.get(12)?;
    let base: Option<i64> = row.get(13)?;
    party.fencing = base.and_then(|base| FencingNumber::from_base(base as u64));
    Ok(Found {
        key: row.get(0)?,
        session: row.get(1)?,
        waits: row.get(3)?,
        party,
    })
}
