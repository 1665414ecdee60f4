//! Looking for what nobody told: wake-ups that got lost, holders that died, rows and files that were
//! deleted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lock_core::host::{Stirred, Watch, WatchedFile};
use lock_core::{LockKey, OwnerToken, runtime};

use crate::batch::{Command, Work};
use crate::database::Database;
use crate::line::Line;
use crate::news::Claim;
use crate::office::Office;
use crate::{error, sql, writer};

/// How often held locks are looked at: a deleted row or file is told after this time at most.
const HOLDS_EVERY: Duration = Duration::from_millis(250);
/// Without sockets, waiters look for their grants this often.
const WITHOUT_MAIL: Duration = Duration::from_millis(1);
/// The deaths of others are looked for this much more rarely where the kernel reports them.
const DEATHS_EVERY: u32 = 8;
/// The kernel reports that a dying process closed its file just before it gives up the lock on it.
const SECOND_LOOKS: [Duration; 5] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(16),
];

/// Whether my waiters were granted something.
const GRANTS: u8 = 1;
/// Whether those in their way still live.
const DEATHS: u8 = 2;
/// Whether what I hold is still there.
const HOLDS: u8 = 4;

/// What the writer is to look at.
#[derive(Debug, Default)]
pub(crate) struct Orders(AtomicU8);

impl Orders {
    pub(crate) fn are_given(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    fn give(&self, what: u8) {
        self.0.fetch_or(what, Ordering::SeqCst);
    }

    fn take(&self) -> u8 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// The tasks that give orders, while there is anything to look after.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// Whether the tasks run. Each clears it and then looks again.
    for_waiters: AtomicBool,
    for_holders: AtomicBool,
    watches: AtomicBool,
    is_watching: AtomicBool,
    data_version: AtomicI64,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            for_waiters: AtomicBool::new(false),
            for_holders: AtomicBool::new(false),
            watches: AtomicBool::new(false),
            is_watching: AtomicBool::new(false),
            data_version: AtomicI64::new(-1),
        }
    }
}

/// Somebody is about to wait: from now on no death goes unnoticed.
pub(crate) fn watch_sessions(office: &Arc<Office>) {
    let watches = &office.rounds().watches;
    if !watches.load(Ordering::Relaxed) && !watches.swap(true, Ordering::AcqRel) {
        watch_deaths(office);
    }
}

/// Somebody waits by now, or owes something.
pub(crate) fn look_after_waiters(office: &Arc<Office>) {
    if !office.rounds().for_waiters.swap(true, Ordering::SeqCst) {
        let office_of_task = Arc::downgrade(office);
        office.keep(runtime::handle().spawn(rounds_for_waiters(office_of_task)));
    }
}

/// Something is held by now.
pub(crate) fn look_after_holders(office: &Arc<Office>) {
    if !office.rounds().for_holders.swap(true, Ordering::SeqCst) {
        let office_of_task = Arc::downgrade(office);
        office.keep(runtime::handle().spawn(rounds_for_holders(office_of_task)));
    }
}

fn watch_deaths(office: &Arc<Office>) {
    let files = [WatchedFile {
        path: office.sessions().to_owned(),
        writes: false,
    }];
    let Some(watch) = Watch::on(&files) else {
        return;
    };
    office.rounds().is_watching.store(true, Ordering::Release);
    office.keep(runtime::handle().spawn(report_deaths(Arc::downgrade(office), watch)));
}

/// The file of a session was closed: perhaps somebody died who is in the way.
async fn report_deaths(office: Weak<Office>, watch: Watch) {
    let mut pauses = [].iter();
    loop {
        // Closed again while the second looks go on: they begin anew.
        let stirred = match pauses.next() {
            None => Some(watch.stirred().await),
            Some(pause) => tokio::time::timeout(*pause, watch.stirred()).await.ok(),
        };
        if stirred == Some(Stirred::Closed) {
            pauses = SECOND_LOOKS.iter();
        }
        let Some(office) = office.upgrade() else {
            return;
        };
        if office.attempts().count().waiting > 0 {
            office.inbox().patrol().give(DEATHS);
            writer::start(&office);
        }
    }
}

async fn rounds_for_waiters(office: Weak<Office>) {
    let mut round = 0u32;
    loop {
        let Some(pause) = office.upgrade().map(|office| pause(&office)) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(office) = office.upgrade() else {
            return;
        };
        round = round.wrapping_add(1);
        let deaths = deaths_are_due(&office, round);
        if !order_for_waiters(&office, deaths) {
            office.rounds().for_waiters.store(false, Ordering::SeqCst);
            // A waiter may have come after this look, and before the task was given up.
            if order_for_waiters(&office, deaths) {
                look_after_waiters(&office);
            }
            return;
        }
    }
}

fn pause(office: &Office) -> Duration {
    let poll = office.config().backup_poll.max(Duration::from_millis(1));
    if office.mailbox().is_some() {
        poll
    } else {
        poll.min(WITHOUT_MAIL)
    }
}

/// Leases of others end without a sound.
fn deaths_are_due(office: &Office, round: u32) -> bool {
    let is_told = office.rounds().is_watching.load(Ordering::Acquire);
    let rarely = is_told || office.mailbox().is_none();
    office.config().ttl.is_some() || !rarely || round.is_multiple_of(DEATHS_EVERY)
}

/// Returns whether anybody waits, or owes something.
fn order_for_waiters(office: &Arc<Office>, deaths: bool) -> bool {
    let count = office.attempts().count();
    if count.waiting > 0 {
        let what = if deaths { GRANTS | DEATHS } else { GRANTS };
        office.inbox().patrol().give(what);
        writer::start(office);
    }
    for (attempt, _) in office.attempts().owed() {
        if let Some(leave) = office.attempts().leave(attempt) {
            writer::submit(office, Box::new(leave));
        }
    }
    count.waiting + count.owed > 0
}

async fn rounds_for_holders(office: Weak<Office>) {
    loop {
        tokio::time::sleep(HOLDS_EVERY).await;
        let Some(office) = office.upgrade() else {
            return;
        };
        if !order_for_holders(&office) {
            office.rounds().for_holders.store(false, Ordering::SeqCst);
            if order_for_holders(&office) {
                look_after_holders(&office);
            }
            return;
        }
    }
}

/// Returns whether anything is held.
fn order_for_holders(office: &Arc<Office>) -> bool {
    let holds = office.attempts().count().holding > 0;
    if holds {
        office.inbox().patrol().give(HOLDS);
        writer::start(office);
    }
    holds
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    granted: Vec<(OwnerToken, Claim)>,
    /// Waiters whose rows are gone.
    deleted: Vec<(OwnerToken, LockKey)>,
    lost: Vec<OwnerToken>,
    /// Keys with somebody dead in the way.
    stale: Vec<LockKey>,
    files_are_gone: bool,
}

/// Looks at what was ordered. Reads only.
pub(crate) fn look(office: &Office, database: &Database) -> Option<Seen> {
    let orders = office.inbox().patrol().take();
    if orders == 0 {
        return None;
    }
    let mut seen = Seen::default();
    if let Err(error) = look_at(office, database, orders, &mut seen) {
        tracing::debug!(%error, "a look at the database failed");
    }
    Some(seen)
}

fn look_at(
    office: &Office,
    database: &Database,
    orders: u8,
    seen: &mut Seen,
) -> rusqlite::Result<()> {
    seen.files_are_gone = !office.is_current() || !office.session_is_current();
    if seen.files_are_gone {
        return Ok(());
    }
    let waiting = office.attempts().queued();
    if orders & HOLDS != 0 {
        for (attempt, key) in office.attempts().holding() {
            if !matches!(fate(office, database, attempt, &key)?, Fate::Holds(_)) {
                seen.lost.push(attempt);
            }
        }
    }
    if orders & (GRANTS | DEATHS) != 0 && has_news(office, database)? {
        for (attempt, key) in &waiting {
            match fate(office, database, *attempt, key)? {
                Fate::Waits => {}
                Fate::Holds(claim) => seen.granted.push((*attempt, claim)),
                Fate::Gone => seen.deleted.push((*attempt, key.clone())),
            }
        }
    }
    if orders & DEATHS != 0 {
        let mut keys: Vec<LockKey> = waiting.into_iter().map(|(_, key)| key).collect();
        keys.sort();
        keys.dedup();
        let mut alive = HashMap::new();
        for key in keys {
            if is_stale(office, database, &key, &mut alive)? {
                seen.stale.push(key);
            }
        }
    }
    Ok(())
}

/// Whether others have committed anything since waiters were last looked at.
fn has_news(office: &Office, database: &Database) -> rusqlite::Result<bool> {
    let version = database.data_version()?;
    let seen = office
        .rounds()
        .data_version
        .swap(version, Ordering::Relaxed);
    Ok(seen != version)
}

enum Fate {
    Waits,
    Holds(Claim),
    Gone,
}

fn fate(
    office: &Office,
    database: &Database,
    attempt: OwnerToken,
    key: &LockKey,
) -> rusqlite::Result<Fate> {
    let found = (
        key.qualified(),
        office.session().id(),
        attempt.counter() as i64,
    );
    let found = database.first(sql::ATTEMPT, found, |row| {
        let (waits, kind): (bool, u8) = (row.get(0)?, row.get(4)?);
        let expires = row.get(2)?;
        let base = row.get(3)?;
        Ok(match (waits, kind) {
            (true, _) => Fate::Waits,
            (false, 0) => Fate::Holds(Claim::exclusive(base, expires)),
            (false, 1) => Fate::Holds(Claim::shared(base, expires)),
            (false, _) => {
                let slot: Option<u32> = row.get(1)?;
                Fate::Holds(Claim::permit(slot.unwrap_or_default(), expires))
            }
        })
    })?;
    Ok(found.unwrap_or(Fate::Gone))
}

/// Whether somebody who holds the key, or waits for it, is dead or has outlived its lease.
fn is_stale(
    office: &Office,
    database: &Database,
    key: &LockKey,
    alive: &mut HashMap<i64, bool>,
) -> rusqlite::Result<bool> {
    let now = lock_core::clock::Instant::now().as_nanos() as i64;
    let parties = database.all(sql::SESSIONS_OF_KEY, [key.qualified()], |row| {
        let (session, expires): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok((session, expires.is_some_and(|end| end < now)))
    })?;
    Ok(parties.into_iter().any(|(session, expired)| {
        let lives = alive
            .entry(session)
            .or_insert_with(|| office.session().is_alive(session));
        expired || !*lives
    }))
}

/// Acts on what was seen, with the connection left.
pub(crate) fn act(office: &Arc<Office>, seen: Seen) {
    if seen.files_are_gone {
        office.lose();
        return;
    }
    for (attempt, claim) in seen.granted {
        office.attempts().grant(attempt, claim);
    }
    for (attempt, key) in seen.deleted {
        let gone = Err(error::place_is_gone(&key));
        office.attempts().turn_away(attempt, gone);
    }
    for attempt in seen.lost {
        office.attempts().revoke(attempt);
    }
    for key in seen.stale {
        writer::submit(office, Box::new(Clear { key }));
    }
}

/// Removes the dead from a key, and lets the next ones in.
#[derive(Debug)]
struct Clear {
    key: LockKey,
}

impl Command for Clear {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        if let Some(mut line) = Line::open(work, self.key.qualified())?
            && line.remove_gone()?
        {
            line.admit()?;
            line.save()?;
        }
        Ok(())
    }
}
