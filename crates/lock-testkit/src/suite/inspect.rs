//! What a person may ask about a lock.

use lock_core::{AcquireOptions, InspectQuery, Mode, OwnerId, ProcessRecord};

use crate::Outcome;
use crate::case::{Case, case};
use crate::context::Context;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(inspect_shows_who_holds_and_who_waits),
        case!(inspect_pages_through_a_namespace),
    ]
}

async fn inspect_shows_who_holds_and_who_waits(context: &Context) -> Outcome {
    let (lock, owner) = (context.lock("a")?, OwnerId::new());
    let options = |label: &str| {
        AcquireOptions::new()
            .label(label)
            .record(label.as_bytes())
            .owner(owner)
    };
    let guard = lock
        .acquire_with(&options("the holder").priority(3))
        .await?;
    let waiting = tokio::spawn(lock.acquire_with(&options("the waiter").priority(-3)));
    context.waiters(&lock, 1).await?;
    let report = context.report(&lock).await?;
    ensure_eq!(
        (report.holders.len(), report.waiters.len()),
        (1, 1),
        "holders and waiters"
    );
    for (party, label) in [
        (&report.holders[0], "the holder"),
        (&report.waiters[0], "the waiter"),
    ] {
        ensure_eq!(party.label.as_deref(), Some(label), "the label");
        ensure_eq!(
            party.record.as_deref(),
            Some(label.as_bytes()),
            "the record"
        );
        ensure_eq!(party.owner, Some(owner), "the owner");
        ensure_eq!(party.mode, Mode::Exclusive, "the mode");
        ensure_eq!(party.process, ProcessRecord::current(), "the process");
        ensure!(party.since.is_some(), "{label} has no time");
    }
    let holder = &report.holders[0];
    ensure_eq!(holder.attempt, guard.attempt(), "the holder's attempt");
    let token = guard.fencing_token().map(lock_core::FencingToken::number);
    ensure_eq!(holder.fencing, token, "the holder's fencing number");
    // Another client sees the holder, too.
    let seen = context.report(&context.lock_elsewhere("a")?).await?;
    let seen = seen.holders.first().and_then(|party| party.label.clone());
    ensure_eq!(seen.as_deref(), Some("the holder"), "another client sees");
    guard.release().await?;
    context
        .soon("the waiter's turn", waiting)
        .await???
        .release()
        .await?;
    Ok(())
}

async fn inspect_pages_through_a_namespace(context: &Context) -> Outcome {
    let mut held = Vec::new();
    for number in 0..7 {
        held.push(context.lock(&format!("key {number}"))?.acquire().await?);
    }
    let mut query = InspectQuery::namespace(context.namespace());
    query.page_size = 3;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = context.backend().inspect(query.clone()).await?;
        ensure!(
            page.keys.len() <= 3,
            "a page of 3 has {} keys",
            page.keys.len()
        );
        seen.extend(page.keys.iter().map(|report| report.key.name().to_owned()));
        pages += 1;
        match page.next {
            Some(next) if pages < 10 => query.after = Some(next),
            _ => break,
        }
    }
    let expected: Vec<_> = (0..7).map(|number| format!("key {number}")).collect();
    ensure_eq!(seen, expected, "keys over all pages");
    Ok(())
}
