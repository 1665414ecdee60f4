//! What other keys cost that are held meanwhile.

use anyhow::Result;
use lock_benches::{Bar, Round, Session, Table};

use crate::keys::{Key, key, keys, time_each};
use crate::locks::{LockMap, Lockable, Locks, Ours};
use crate::plot::{Plot, Series};

const CALLS: usize = 200_000;
const HELD: [usize; 5] = [0, 100, 1_000, 10_000, 100_000];

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let keys = keys(1_000);
    let others: Vec<Key> = (0..HELD[4])
        .map(|number| key(10_000_000 + number))
        .collect();
    let rounds = session.section("held", |round| {
        for held in HELD {
            let ours = Ours::new();
            let _guards: Vec<_> = others[..held]
                .iter()
                .map(|key| ours.acquire(key).wait())
                .collect();
            record(round, "ours", held, &keys, &ours);
            let lockmap = LockMap::new();
            let _guards: Vec<_> = others[..held]
                .iter()
                .map(|key| lockmap.entry_by_ref(key.as_str()))
                .collect();
            record(round, "lockmap", held, &keys, &lockmap);
            let lockable = Lockable::new();
            let _guards: Vec<_> = others[..held]
                .iter()
                .map(|key| lockable.blocking_lock(key.clone()))
                .collect();
            record(round, "lockable", held, &keys, &lockable);
        }
        Ok(())
    })?;
    let Some(rounds) = rounds else {
        return Ok(());
    };
    let growth = |round: &Round| round.get(&at("ours", 10_000)) / round.get(&at("ours", 0));
    session.judge(&rounds, &Bar::at_most("with-10000-held", 2.0), growth);
    let mut table = Table::new(["ns per pair", "0 held", "100", "1,000", "10,000", "100,000"]);
    let mut plot = Plot::logarithmic("held", "other keys held", "ns per pair");
    for who in ["ours", "lockmap", "lockable"] {
        let figures = HELD.map(|held| rounds.median(&at(who, held)));
        let cells = figures.map(|figure| format!("{figure:.1}"));
        table.row(std::iter::once(who.to_owned()).chain(cells));
        let points = HELD.iter().zip(figures).skip(1);
        plot.add(Series::new(
            who,
            points.map(|(held, ns)| (*held as f64, ns)),
        ));
    }
    session.show(table);
    plot.write(session)
}

fn at(who: &str, held: usize) -> String {
    format!("{who}, {held} held")
}

fn record(round: &mut Round, who: &str, held: usize, keys: &[Key], locks: &impl Locks) {
    let ns = time_each(keys, CALLS, |key| locks.with(key, || {}));
    round.record(at(who, held), ns);
}
