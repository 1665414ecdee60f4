//! Who holds and who waits, on every node.

use std::collections::BTreeSet;

use lock_core::{
    FencingNumber, InspectQuery, KeyReport, LockKey, Mode, OwnerToken, PartyRecord, Result, Select,
};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{RedisResult, Value, from_redis_value};

use crate::error::{Remedy, remedy, unavailable};
use crate::names::{Names, encoded_of, pattern, plain_key};
use crate::party;
use crate::script::{Call, Script};

/// Keys looked at by one step of a scan, and asked for at once.
const STEP: usize = 200;
/// The longest line of waiters that is reported of one key.
const WAITERS_MOST: usize = 10_000;

/// Reports what a query selects, with the debts of this process. `None` when a node has a slot no
/// more that it was asked about.
pub(crate) async fn report(
    connections: Vec<MultiplexedConnection>,
    prefix: String,
    query: InspectQuery,
    debts: Vec<(LockKey, OwnerToken)>,
) -> Result<Option<Vec<KeyReport>>> {
    match ask_all(connections, &prefix, &query).await {
        Ok(reports) => Ok(Some(with_debts(reports, debts))),
        Err(failure) => match remedy(&failure) {
            Remedy::Moved(_) | Remedy::Ask(_) => Ok(None),
            Remedy::Refuse(error) => Err(error),
            _ => Err(unavailable("the question")),
        },
    }
}

async fn ask_all(
    connections: Vec<MultiplexedConnection>,
    prefix: &str,
    query: &InspectQuery,
) -> RedisResult<Vec<KeyReport>> {
    let mut reports = Vec::new();
    for mut connection in connections {
        let hashes = match &query.select {
            Select::Key(key) => vec![Names::new(prefix, key).base],
            Select::Namespace(namespace) => {
                scan(&mut connection, &pattern(prefix, namespace)).await?
            }
        };
        for hash in hashes {
            let Some(encoded) = encoded_of(prefix, &hash) else {
                continue;
            };
            let known = match &query.select {
                Select::Key(key) => Some(key.clone()),
                Select::Namespace(_) => plain_key(encoded),
            };
            let answer = ask(&mut connection, &hash).await?;
            reports.extend(read(answer, known));
        }
    }
    Ok(reports)
}

fn with_debts(mut reports: Vec<KeyReport>, debts: Vec<(LockKey, OwnerToken)>) -> Vec<KeyReport> {
    for (key, attempt) in debts {
        let at = reports.iter().position(|report| report.key == key);
        let at = at.unwrap_or_else(|| {
            reports.push(KeyReport::idle(key.clone()));
            reports.len() - 1
        });
        reports[at].debts.push(attempt);
    }
    reports
}

/// The hashes and streams of locks. SCAN, never KEYS: the server goes on serving others.
async fn scan(connection: &mut MultiplexedConnection, pattern: &str) -> RedisResult<Vec<String>> {
    let mut found = scan_for("hash", connection, pattern).await?;
    found.extend(scan_for("stream", connection, pattern).await?);
    Ok(found.into_iter().collect())
}

async fn scan_for(
    kind: &str,
    connection: &mut MultiplexedConnection,
    pattern: &str,
) -> RedisResult<BTreeSet<String>> {
    let (mut found, mut cursor) = (BTreeSet::new(), 0_u64);
    loop {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(STEP);
        command.arg("TYPE").arg(kind);
        let (next, names): (u64, Vec<String>) = command.query_async(connection).await?;
        found.extend(names);
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection, hash: &str) -> RedisResult<Value> {
    let names = Names {
        base: hash.to_owned(),
    };
    let call = Call::on(Script::inspect(), &names).arg(WAITERS_MOST.to_string());
    let answer = connection.req_packed_command(&call.command(true)).await;
    match answer.and_then(Value::extract_error) {
        Err(failure) if matches!(remedy(&failure), Remedy::SendScript) => {
            let answer = connection.req_packed_command(&call.command(false)).await;
            answer.and_then(Value::extract_error)
        }
        answer => answer,
    }
}

/// `{now, fence, {party, until when, …}, {party, arrival, …}}`
fn read(answer: Value, known: Option<LockKey>) -> Option<KeyReport> {
    let (now, fence, held, waiting): (u64, u64, Vec<Value>, Vec<Value>) =
        from_redis_value(answer).ok()?;
    let mut key = known;
    let mut parties = |values: Vec<Value>| -> Vec<(PartyRecord, u64)> {
        let mut parties = Vec::new();
        let mut values = values.into_iter();
        while let (Some(line), Some(time)) = (values.next(), values.next()) {
            let line = from_redis_value::<String>(line).unwrap_or_default();
            let time = from_redis_value::<u64>(time).unwrap_or_default();
            if let Some((record, named)) = party::read(&line) {
                key = key.take().or(named);
                parties.push((record, time));
            }
        }
        parties
    };
    let (held, waiting) = (parties(held), parties(waiting));
    let mut report = KeyReport::idle(key?);
    for (mut record, until) in held {
        let left = std::time::Duration::from_micros(until.saturating_sub(now));
        record.remaining = Some(left);
        if record.mode == Mode::Exclusive {
            record.fencing = FencingNumber::from_base(fence);
            record.since = Some(party::wall_time(fence));
        }
        report.holders.push(record);
    }
    for (mut record, arrival) in waiting {
        record.since = Some(party::wall_time(arrival));
        report.waiters.push(record);
    }
    Some(report)
}
