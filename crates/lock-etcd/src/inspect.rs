//! Who holds, who waits, and what is owed; and an operator's order to break.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lock_core::{
    InspectPage, InspectQuery, KeyReport, LockKey, OwnerToken, PartyRecord, Result, Select,
};

use crate::client::Client;
use crate::error::Failure;
use crate::layout::{self, Name, Place};
use crate::leave;
use crate::line::{Line, Party, Stand};
use crate::queue::Patience;
use crate::record::Record;
use crate::wire::{KeyValue, RangeResponse, Span, TimeToLiveRequest, TimeToLiveResponse};

/// How many records are read in one request.
const PAGE: i64 = 500;

pub(crate) async fn inspect(client: &Arc<Client>, query: &InspectQuery) -> Result<InspectPage> {
    let lines = match &query.select {
        Select::Key(key) => {
            let place = client.place(key);
            let span = place.all();
            let range = patiently(client, || client.cluster.range(&span)).await?;
            vec![Line::read(&place, &range)]
        }
        Select::Namespace(_) => all_lines(client, query).await?,
    };
    let mut reports: BTreeMap<LockKey, KeyReport> = BTreeMap::new();
    let mut leases = HashMap::new();
    for line in &lines {
        let mut report = KeyReport::idle(line.place.key.clone());
        for holder in line.holders() {
            let mut record = party(holder);
            let exclusive = holder.mode == lock_core::Mode::Exclusive;
            let fence = crate::grant::fence(holder.mode, holder.created, &[]);
            if let (true, Ok(lock_core::Fence::Exclusive(number))) = (exclusive, fence) {
                record.fencing = Some(number);
            }
            record.remaining = remaining(client, &mut leases, holder.lease).await;
            report.holders.push(record);
        }
        report.waiters.extend(line.waiters().map(party));
        reports.insert(report.key.clone(), report);
    }
    for (attempt, key) in client.table.debts() {
        let report = reports
            .entry(key.clone())
            .or_insert_with(|| KeyReport::idle(key));
        report.debts.push(attempt);
    }
    Ok(query.page_of(reports.into_values().collect()))
}

/// Takes the lock from its holders. Those who wait hear of it and let themselves in.
pub(crate) async fn break_lock(
    client: &Arc<Client>,
    place: &Place,
    attempt: Option<OwnerToken>,
) -> Result<usize> {
    let span = place.all();
    let range = patiently(client, || client.cluster.range(&span)).await?;
    let line = Line::read(place, &range);
    let mut broken = 0;
    for holder in line.holders() {
        if attempt.is_some_and(|wanted| wanted != holder.attempt) {
            continue;
        }
        let stand = Stand {
            attempt: holder.attempt,
            mode: holder.mode,
            created: holder.created,
        };
        if patiently(client, || leave::leave(client, place, &stand)).await? {
            broken += 1;
        }
    }
    Ok(broken)
}

async fn all_lines(client: &Arc<Client>, query: &InspectQuery) -> Result<Vec<Line>> {
    let mut span = layout::all_locks(&client.config().prefix);
    let mut places: HashMap<String, (LockKey, Vec<KeyValue>)> = HashMap::new();
    loop {
        let page = patiently(client, || client.cluster.page(&span, PAGE)).await?;
        let last = page.kvs.last().map(|entry| entry.key.clone());
        for entry in page.kvs {
            let Some(name) = Name::parse(&entry.key) else {
                continue;
            };
            let key = Record::parse(&entry.value)
                .and_then(|record| LockKey::from_qualified(&record.key).ok());
            let Some(key) = key.filter(|key| query.selects(key)) else {
                continue;
            };
            places
                .entry(name.base)
                .or_insert_with(|| (key, Vec::new()))
                .1
                .push(entry);
        }
        match last.filter(|_| page.more) {
            Some(mut last) => {
                // The next key there can be.
                last.push(0);
                span = Span {
                    start: last,
                    ..span
                };
            }
            None => break,
        }
    }
    let lines = places.into_values().map(|(key, kvs)| {
        let range = RangeResponse {
            kvs,
            ..RangeResponse::default()
        };
        Line::read(&client.place(&key), &range)
    });
    Ok(lines.collect())
}

fn party(party: &Party) -> PartyRecord {
    let mut record = party.record.to_party(party.attempt, party.mode);
    record.priority = party.priority;
    record
}

/// How long a lease lasts, asked once for each.
async fn remaining(
    client: &Client,
    leases: &mut HashMap<i64, Option<Duration>>,
    lease: i64,
) -> Option<Duration> {
    if let Some(known) = leases.get(&lease) {
        return *known;
    }
    let ours = client.sessions.all().into_iter();
    let ours = ours.filter(|session| session.lease == lease);
    let ours = ours
        .filter_map(|session| session.validity.deadline())
        .next();
    let left = match ours {
        Some(deadline) => Some(deadline.remaining()),
        None => {
            let path = "/etcdserverpb.Lease/LeaseTimeToLive";
            let request = TimeToLiveRequest { id: lease };
            let answer: Result<TimeToLiveResponse, Failure> =
                client.cluster.ask(path, request).await;
            answer
                .ok()
                .and_then(|answer| u64::try_from(answer.ttl).ok())
                .map(Duration::from_secs)
        }
    };
    leases.insert(lease, left);
    left
}

/// Asks again until there is an answer, as long as the patience lasts.
async fn patiently<T, F>(client: &Client, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Failure>>,
{
    let patience = Patience::new(client, lock_core::Wait::Forever);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => patience.again(failure).await?,
        }
    }
}
