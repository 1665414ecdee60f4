//! Four processes that want one key, and one that wants it alone among readers.

use std::path::Path;

use anyhow::{Result, ensure};
use lock_benches::{Bar, Session};

use crate::party::{Kind, Party, Share};

const PROCESSES: usize = 4;
const READERS: usize = 8;
const HOLD_MICROSECONDS: u64 = 200;
/// Long enough for more than 10,000 grants.
const FAIRNESS_MILLISECONDS: u64 = 6_000;
const READERS_MILLISECONDS: u64 = 1_000;
const READ_MICROSECONDS: u64 = 1_000;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let fair = session.section("four processes on one key", |round| {
        let start = || Party::start(Kind::Ours, directory.path());
        let parties = start_all(start, PROCESSES)?;
        let shares = contend(parties, HOLD_MICROSECONDS, FAIRNESS_MILLISECONDS)?;
        let total: u64 = shares.iter().map(|share| share.grants).sum();
        ensure!(violations(&shares) == 0, "two were inside at once");
        round.record("grants", total as f64);
        round.record("max/min grants", unevenness(&shares));
        round.record("longest time without a grant, us", longest_gap(&shares));
        Ok(())
    })?;
    if let Some(rounds) = fair {
        let grants = rounds.median("grants");
        ensure!(grants >= 10_000.0, "{grants} grants say too little");
        let bar = Bar::at_most("file-fairness-max-over-min", 1.3);
        session.judge(&rounds, &bar, |round| round.get("max/min grants"));
        let bar = Bar::tail_at_most("file-fairness-longest-gap-us", 100_000.0);
        session.judge(&rounds, &bar, |round| {
            round.get("longest time without a grant, us")
        });
    }
    let readers = session.section("one exclusive among eight readers", |round| {
        let (exclusive, shared) = among_readers(directory.path())?;
        let per_second = 1000.0 / READERS_MILLISECONDS as f64;
        round.record("exclusive grants/s", exclusive.grants as f64 * per_second);
        round.record("shared grants/s", shared as f64 * per_second);
        Ok(())
    })?;
    if let Some(rounds) = readers {
        let bar = Bar::at_least("file-exclusive-among-readers-per-second", 200.0);
        session.judge(&rounds, &bar, |round| round.get("exclusive grants/s"));
    }
    Ok(())
}

pub(crate) fn start_all(start: impl Fn() -> Result<Party>, count: usize) -> Result<Vec<Party>> {
    (0..count).map(|_| start()).collect()
}

/// All at once, for a while.
pub(crate) fn contend(
    mut parties: Vec<Party>,
    hold_microseconds: u64,
    milliseconds: u64,
) -> Result<Vec<Share>> {
    for party in &mut parties {
        // Everyone is up before anyone starts.
        party.tell("cycles 1")?;
        party.hear()?;
    }
    for party in &mut parties {
        party.tell(&format!("contend {hold_microseconds} {milliseconds}"))?;
    }
    parties.iter_mut().map(Party::hear_share).collect()
}

fn among_readers(directory: &Path) -> Result<(Share, u64)> {
    let start = || Party::start(Kind::OursShared, directory);
    let mut readers = start_all(start, READERS)?;
    let mut writer = Party::start(Kind::Ours, directory)?;
    for party in readers.iter_mut().chain([&mut writer]) {
        party.tell("cycles 1")?;
        party.hear()?;
    }
    for party in &mut readers {
        let milliseconds = READERS_MILLISECONDS + 100;
        party.tell(&format!("contend {READ_MICROSECONDS} {milliseconds}"))?;
    }
    writer.tell(&format!("contend 0 {READERS_MILLISECONDS}"))?;
    let exclusive = writer.hear_share()?;
    let mut shared = 0;
    for party in &mut readers {
        shared += party.hear_share()?.grants;
    }
    Ok((exclusive, shared))
}

pub(crate) fn violations(shares: &[Share]) -> u64 {
    shares.iter().map(|share| share.violations).sum()
}

pub(crate) fn unevenness(shares: &[Share]) -> f64 {
    let grants = || shares.iter().map(|share| share.grants);
    grants().max().unwrap_or(0) as f64 / grants().min().unwrap_or(0) as f64
}

pub(crate) fn longest_gap(shares: &[Share]) -> f64 {
    let gaps = shares.iter().map(|share| share.longest_gap);
    gaps.max().unwrap_or(0) as f64
}
