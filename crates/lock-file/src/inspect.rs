//! Who holds and who waits, here and in other processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use lock_core::{
    InspectPage, InspectQuery, KeyReport, LockKey, Mode, PartyRecord, ProcessRecord, Result, Select,
};

use crate::backend::Shared;
use crate::error::failed;
use crate::key_file::KeyFile;
use crate::names::{LOCK, Names};
use crate::record;
use crate::seat::Seat;
use crate::slots::Numbers;
use crate::turnstile::Turnstile;
use lock_core::host::{LockFile, LockKind};

/// Reports a page of keys.
///
/// Of other processes it knows what their kernel locks confirm: an exclusive holder, permit holders,
/// the first 64 shared holders, and the waiter that is next. A record without its lock
/// is that of a process that died or released, and is not shown.
pub(crate) fn page(shared: &Arc<Shared>, query: &InspectQuery) -> Result<InspectPage> {
    let keys = match &query.select {
        Select::Key(key) => vec![key.clone()],
        Select::Namespace(namespace) => keys_of(shared, namespace)?,
    };
    let mut reports = Vec::new();
    for key in keys {
        // A page more one is enough to know whether there is a next one.
        if reports.len() > query.page_size {
            break;
        }
        if query.selects(&key) {
            let report = report(shared, &key)?;
            if !report.is_idle() {
                reports.push(report);
            }
        }
    }
    Ok(query.page_of(reports))
}

/// The keys of a namespace that have a file or are used here, in order.
fn keys_of(shared: &Shared, namespace: &str) -> Result<Vec<LockKey>> {
    let table = shared.table();
    let here = table.cells().into_iter().map(|cell| cell.key().clone());
    let mut keys: BTreeSet<LockKey> = here.collect();
    let directory = table.directory().path();
    let entries = std::fs::read_dir(directory).map_err(|e| failed("list", directory, e))?;
    for entry in entries {
        let entry = entry.map_err(|source| failed("list", directory, source))?;
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(LOCK)) else {
            continue;
        };
        // The encoded name starts with the namespace; reading the record of others is spared.
        let named = stem.split_once('+').map_or("", |(namespace, _)| namespace);
        if named != namespace {
            continue;
        }
        if let Some(file) = LockFile::open_existing(entry.path())?
            && let Some((_, Some(body))) = record::read(&file)?
        {
            keys.insert(body.key);
        }
    }
    keys.retain(|key| key.namespace() == namespace);
    Ok(keys.into_iter().collect())
}

fn report(shared: &Shared, key: &LockKey) -> Result<KeyReport> {
    let mut report = KeyReport::idle(key.clone());
    let names = Names::of(shared.table().directory(), key);
    let mut mine = Numbers::new();
    let mut leads = false;
    shared.table().with_known(key, |_, state| {
        report.holders = state
            .queue()
            .holders()
            .map(|p| record_of(&p.data))
            .collect();
        report.waiters = state
            .queue()
            .waiters()
            .map(|p| record_of(&p.data))
            .collect();
        mine = state.kernel().slots();
        leads = state.kernel().leads();
    });
    let exclusive_here = |holder: &PartyRecord| holder.mode == Mode::Exclusive;
    if !report.holders.iter().any(exclusive_here) {
        add_other_holders(&names, &mine, &mut report)?;
    }
    if !leads {
        add_next(&names, &mut report)?;
    }
    Ok(report)
}

fn record_of(seat: &Seat) -> PartyRecord {
    let request = &seat.request;
    let mut party = PartyRecord::new(
        request.attempt,
        request.mode,
        ProcessRecord::of_this_process().clone(),
    );
    party.priority = request.priority;
    party.owner = request.owner;
    party.label = request.label.as_deref().map(str::to_owned);
    party.record = request.record.as_deref().map(<[u8]>::to_vec);
    party.since = Some(seat.since);
    party.fencing = seat.number();
    party
}

/// Adds the holders of other processes, as far as the kernel confirms them.
fn add_other_holders(names: &Names, mine: &[u32], report: &mut KeyReport) -> Result<()> {
    let Some(mut lock) = KeyFile::open_existing(names.lock())? else {
        return Ok(());
    };
    // The trial locks below are in nobody's way: whoever is refused because of one asks again in
    // turn, and whoever waits is told. Without the turn (somebody who asks may be stopped) records
    // are taken at their word.
    let mut turnstile = Turnstile::existing(names)?;
    let asks = !turnstile.is_unused() && turnstile.enter(names, &lock)?;
    let sure = asks || turnstile.is_unused() || lock.somebody_is_next();
    if sure && lock.try_lock(LockKind::Exclusive)? {
        // Nobody holds.
        lock.unlock();
    } else if sure && lock.try_lock(LockKind::Shared)? {
        lock.unlock();
        add_slots(names, mine, report)?;
    } else if let Some((_, Some(body))) = lock.record()? {
        report.holders.extend(body.holder);
    }
    if asks {
        turnstile.leave(Some(&mut lock));
    }
    Ok(())
}

fn add_slots(names: &Names, mine: &[u32], report: &mut KeyReport) -> Result<()> {
    for number in names.slots_on_disk() {
        if mine.contains(&number) {
            continue;
        }
        let Some(mut slot) = LockFile::open_existing(names.slot(number))? else {
            continue;
        };
        if slot.try_lock(LockKind::Exclusive)? {
            continue;
        }
        let holder = record::holder(&slot)?;
        // A holder of several permits has its record in each of its slots.
        let known = |h: &PartyRecord| report.holders.iter().any(|k| k.attempt == h.attempt);
        if let Some(holder) = holder.filter(|holder| !known(holder)) {
            report.holders.push(holder);
        }
    }
    Ok(())
}

/// Adds the waiter of another process that is next.
fn add_next(names: &Names, report: &mut KeyReport) -> Result<()> {
    let Some(mut turn) = LockFile::open_existing(names.turn())? else {
        return Ok(());
    };
    if turn.try_lock(LockKind::Shared)? {
        return Ok(());
    }
    let next = record::holder(&turn)?;
    let known = |next: &PartyRecord| {
        let mut parties = report.waiters.iter().chain(&report.holders);
        parties.any(|party| party.attempt == next.attempt)
    };
    if let Some(next) = next.filter(|next| !known(next)) {
        report.waiters.insert(0, next);
    }
    Ok(())
}
