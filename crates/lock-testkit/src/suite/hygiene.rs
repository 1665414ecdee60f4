//! What is left afterwards: nothing.

use lock_core::{AcquireOptions, ErrorKind, Lock, LockKey, Mode, Released};

use crate::Outcome;
use crate::case::{Case, Need, case};
use crate::context::Context;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(capabilities_do_not_change),
        case!(touched_names_leave_nothing_in_the_store).alone(),
        case!(a_mode_that_was_used_leaves_nothing_behind).needs(Need::Shared),
        case!(closing_refuses_new_ones_and_tells_those_who_wait),
        case!(closing_leaves_what_is_held_with_its_guard),
        case!(a_second_client_leaves_nothing_open).alone(),
    ]
}

async fn capabilities_do_not_change(context: &Context) -> Outcome {
    let first = context.capabilities();
    context.lock("a")?.acquire().await?.release().await?;
    ensure_eq!(context.capabilities(), first, "capabilities are");
    ensure_eq!(
        context.client()?.capabilities(),
        first,
        "another client's capabilities are"
    );
    Ok(())
}

async fn touched_names_leave_nothing_in_the_store(context: &Context) -> Outcome {
    for number in 0..500 {
        let lock = context.lock(&format!("name {number}"))?;
        let guard = lock.acquire().await?;
        ensure!(
            lock.try_acquire().await?.is_none(),
            "a held lock was granted"
        );
        drop(guard);
    }
    let mut stored = Vec::new();
    let empty = context
        .eventually("an empty store", async || {
            stored = context.kit().stored().await?;
            Ok(stored.is_empty())
        })
        .await;
    ensure!(
        empty.is_ok(),
        "{} left in the store, the first: {:?}",
        stored.len(),
        stored.first()
    );
    Ok(())
}

async fn a_mode_that_was_used_leaves_nothing_behind(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    for mode in [Mode::Shared, Mode::Exclusive, Mode::Shared] {
        let options = AcquireOptions::new().mode(mode);
        context
            .soon("a free lock", lock.acquire_with(&options))
            .await??
            .release()
            .await?;
        context.nothing_is_left().await?;
    }
    Ok(())
}

/// A lock on a client that may be closed.
fn closable(context: &Context, name: &str) -> Outcome<Lock> {
    let key: LockKey = context.key(name)?;
    Ok(Lock::new(context.kit().closable_client()?, key))
}

async fn closing_refuses_new_ones_and_tells_those_who_wait(context: &Context) -> Outcome {
    let lock = closable(context, "a")?;
    let guard = lock.acquire().await?;
    let waiting = tokio::spawn(lock.acquire());
    context.waiters(&lock, 1).await?;
    context.soon("a close", lock.backend().close()).await??;
    let told = context.soon("the waiter's news", waiting).await??;
    ensure_eq!(
        told.err().map(|error| error.kind()),
        Some(ErrorKind::Closed),
        "the waiter got"
    );
    let tried = lock.try_acquire().await.err().map(|error| error.kind());
    ensure_eq!(tried, Some(ErrorKind::Closed), "a try after the close gave");
    let asked = context.soon("an answer", lock.acquire()).await?;
    ensure_eq!(
        asked.err().map(|error| error.kind()),
        Some(ErrorKind::Closed),
        "acquiring gave"
    );
    context
        .soon("a second close", lock.backend().close())
        .await??;
    drop(guard);
    context.becomes_free(&context.lock("a")?).await
}

async fn closing_leaves_what_is_held_with_its_guard(context: &Context) -> Outcome {
    let lock = closable(context, "a")?;
    let guard = lock.acquire().await?;
    context.soon("a close", lock.backend().close()).await??;
    ensure!(guard.is_held(), "closing ended what was held");
    ensure_eq!(
        guard.release().await?,
        Released::Released,
        "release after the close said"
    );
    context.becomes_free(&context.lock("a")?).await
}

async fn a_second_client_leaves_nothing_open(context: &Context) -> Outcome {
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let use_one = async || -> Outcome {
        let lock = closable(context, "a")?;
        lock.acquire().await?.release().await?;
        lock.backend().close().await?;
        Ok(())
    };
    // What a process starts once is there after the first.
    use_one().await?;
    let before = (open(), threads());
    for _ in 0..30 {
        use_one().await?;
    }
    let mut after = before;
    let settled = context
        .eventually("descriptors and threads given back", async || {
            after = (open(), threads());
            Ok(after.0 < before.0 + 10 && after.1 < before.1 + 10)
        })
        .await;
    ensure!(
        settled.is_ok(),
        "30 clients left descriptors and threads: {before:?} became {after:?}"
    );
    Ok(())
}
