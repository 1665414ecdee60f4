//! Many tasks of one process, each with a name of its own.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use lock_benches::{Bar, Session};
use lock_core::{Lock, LockBackend, LockKey};
use lock_sqlite::SqliteConfig;

use crate::bare::Bare;
use crate::uncontended::backend;

const TASKS: usize = 64;
const PAIRS: usize = 150;

pub(crate) fn measure(session: &mut Session) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build()?;
    let open = |name: &str, batch: u32| {
        let mut config = SqliteConfig::at(directory.path().join(name).join("locks.db"));
        config.batch = NonZeroU32::new(batch).unwrap_or(NonZeroU32::MIN);
        backend(config)
    };
    let (batched, single) = (open("batched", 64)?, open("single", 1)?);
    let rounds = session.section("64 tasks", |round| {
        round.record("batched, pairs/s", runtime.block_on(rate(&batched))?);
        round.record("unbatched, pairs/s", runtime.block_on(rate(&single))?);
        let bare = directory.path().join("bare.db");
        round.record("bare statements, one thread, pairs/s", bare_rate(&bare)?);
        Ok(())
    })?;
    if let Some(rounds) = rounds {
        let bar = Bar::at_least("sqlite-64-tasks-batched-vs-unbatched", 3.0);
        session.judge(&rounds, &bar, |round| {
            round.get("batched, pairs/s") / round.get("unbatched, pairs/s")
        });
    }
    Ok(())
}

/// Pairs in a second, of all tasks together.
async fn rate(backend: &Arc<dyn LockBackend>) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let lock = Lock::new(Arc::clone(backend), LockKey::new(format!("task {task}"))?);
        tasks.spawn(async move {
            for _ in 0..PAIRS {
                lock.acquire().await?.release().await?;
            }
            Ok::<_, lock_core::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((TASKS * PAIRS) as f64 / start.elapsed().as_secs_f64())
}

fn bare_rate(path: &Path) -> Result<f64> {
    let bare = Bare::open(path)?;
    let start = Instant::now();
    for pair in 0..PAIRS * TASKS / 4 {
        bare.cycle(&format!("task {}", pair % TASKS), 1)?;
    }
    Ok((PAIRS * TASKS / 4) as f64 / start.elapsed().as_secs_f64())
}
