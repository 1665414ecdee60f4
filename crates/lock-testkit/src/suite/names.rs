//! Every name that the key type takes works on every backend, and is itself alone.

use std::collections::HashSet;

use lock_core::{ErrorKind, Lock, LockKey};

use crate::Outcome;
use crate::case::{Case, Need, case};
use crate::context::Context;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(names_outside_the_rules_are_refused),
        case!(every_kind_of_name_works_and_is_itself_alone),
        case!(long_names_that_share_a_start_are_different),
        case!(names_are_case_sensitive),
        case!(namespaces_isolate),
        case!(a_hundred_thousand_names_do_not_collide),
        case!(what_the_previous_release_holds_is_excluded).needs(Need::PreviousRelease),
    ]
}

async fn names_outside_the_rules_are_refused(context: &Context) -> Outcome {
    let long = "x".repeat(LockKey::MAX_LEN + 1);
    for name in ["", "\0", "a\0b", &long] {
        let kind = LockKey::new(name).err().map(|error| error.kind());
        ensure_eq!(
            kind,
            Some(ErrorKind::InvalidKey),
            "a name of {} bytes gave",
            name.len()
        );
    }
    // The longest one that is allowed must be.
    let longest = context.lock(&"x".repeat(LockKey::MAX_LEN))?;
    longest.acquire().await?.release().await?;
    Ok(())
}

fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "x",
        ".",
        "..",
        "../..",
        "/",
        "//",
        "/etc/passwd",
        "a/b",
        "a/",
        "/a",
        "{}",
        "{a}b",
        "{a}c",
        " ",
        "a ",
        " a",
        "a.",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\u{1}",
        "\u{7f}",
        "\u{1b}[2J",
        "\u{e9}",
        "e\u{301}",
        "\u{df}",
        "ss",
        "\u{130}",
        "\u{1f512}",
        "\u{202e}abc",
        "con",
        "CON",
        "nul",
        "com1.txt",
        "prn",
        "aux",
        "lock",
        "*",
        "?",
        "a*",
        "[a]",
        "\\",
        "a\\b",
        "%",
        "%00",
        "%2F",
        "~",
        "~a",
        "a~",
        "'",
        "\"",
        "';drop table locks;--",
        "$HOME",
        "`id`",
        "|",
        "-rf",
        "--",
        ":",
        "a:b",
        "::",
        "@",
        "#",
        "a=b",
        "0",
        "-1",
        "null",
    ]
    .map(str::to_owned)
    .into();
    names.extend([255, 256, 1000, 4096].map(|length| "x".repeat(length)));
    names.push("\u{1f512}".repeat(1024));
    names
}

async fn every_kind_of_name_works_and_is_itself_alone(context: &Context) -> Outcome {
    let elsewhere = context.client()?;
    let mut held = Vec::new();
    for name in odd_names() {
        let lock = context.lock(&name)?;
        let guard = lock.try_acquire().await?;
        ensure!(
            guard.is_some(),
            "{name:?} shares its lock with a name before it"
        );
        let other = Lock::new(elsewhere.clone(), lock.key().clone());
        ensure!(
            other.try_acquire().await?.is_none(),
            "{name:?} does not exclude itself"
        );
        let report = context.report(&lock).await?;
        ensure_eq!(report.key, *lock.key(), "inspect shows the key");
        ensure_eq!(report.holders.len(), 1, "holders of {name:?}");
        held.extend(guard);
    }
    for guard in held {
        guard.release().await?;
    }
    Ok(())
}

async fn long_names_that_share_a_start_are_different(context: &Context) -> Outcome {
    let start = "x".repeat(LockKey::MAX_LEN - 3);
    let mut held = Vec::new();
    for number in 0..50 {
        let guard = context
            .lock(&format!("{start}{number:03}"))?
            .try_acquire()
            .await?;
        ensure!(
            guard.is_some(),
            "number {number} shares its lock with one before it"
        );
        held.extend(guard);
    }
    Ok(())
}

async fn names_are_case_sensitive(context: &Context) -> Outcome {
    let names = [
        "key",
        "Key",
        "KEY",
        "kEY",
        "\u{e9}",
        "\u{c9}",
        &"k".repeat(300),
        &"K".repeat(300),
    ];
    let mut held = Vec::new();
    for name in names {
        let guard = context.lock(name)?.try_acquire().await?;
        ensure!(
            guard.is_some(),
            "{name:?} shares its lock with the same word in other letters"
        );
        held.extend(guard);
    }
    Ok(())
}

async fn namespaces_isolate(context: &Context) -> Outcome {
    let here = context.key("a")?;
    let elsewhere = format!("{}-b", context.namespace());
    // The last one imitates the namespace in the name.
    let keys = [
        here.clone(),
        here.in_namespace(&elsewhere)?,
        LockKey::new(here.qualified())?.in_namespace(&elsewhere)?,
        LockKey::new(here.qualified())?.in_namespace("")?,
    ];
    let mut held = Vec::new();
    for key in keys {
        let lock = Lock::new(context.backend().clone(), key);
        let guard = lock.try_acquire().await?;
        ensure!(
            guard.is_some(),
            "{} shares its lock with another namespace",
            lock.key()
        );
        held.extend(guard);
    }
    let query = lock_core::InspectQuery::namespace(context.namespace());
    let seen = context.backend().inspect(query).await?.keys;
    let seen: Vec<_> = seen.into_iter().map(|report| report.key).collect();
    ensure_eq!(seen, vec![here], "keys in the namespace");
    for guard in held {
        guard.release().await?;
    }
    Ok(())
}

async fn a_hundred_thousand_names_do_not_collide(context: &Context) -> Outcome {
    let mut seen = HashSet::new();
    for number in 0..100_000 {
        let name = match number % 4 {
            0 => format!("k{number}"),
            1 => format!("K{number}"),
            2 => format!("a/b {number}"),
            _ => format!("{}{number}", "long".repeat(40)),
        };
        let key = context.key(&name)?;
        // A file system may fold case.
        ensure!(
            seen.insert(key.encoded().to_lowercase()),
            "{name:?} is stored under a name that is taken"
        );
    }
    // And the backend itself, at as many keys as it can surely hold at once.
    let mut held = Vec::new();
    for number in 0..200 {
        let guard = context
            .lock(&format!("Key {number}"))?
            .try_acquire()
            .await?;
        ensure!(
            guard.is_some(),
            "key {number} shares its lock with one before it"
        );
        held.extend(guard);
    }
    Ok(())
}

async fn what_the_previous_release_holds_is_excluded(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let Some(planted) = context.kit().previous_release(lock.key()) else {
        return Ok(());
    };
    let planted = planted?;
    ensure!(
        lock.try_acquire().await?.is_none(),
        "what the previous release holds was granted"
    );
    drop(planted);
    context.becomes_free(&lock).await
}
