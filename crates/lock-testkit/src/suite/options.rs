//! What a caller may ask for beside the lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{AcquireOptions, ErrorKind, Lock, LossReason, Mode, OwnerId, Released, Wait};

use crate::case::{Case, Need, case};
use crate::context::Context;
use crate::process::{Act, Answer, Ask};
use crate::{Failure, Outcome};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_detached_lock_stays_held_until_it_is_attached_and_released),
        case!(a_lock_is_detached_here_and_attached_in_another_process)
            .needs(Need::DetachAnywhere)
            .needs(Need::SecondProcess),
        case!(a_transfer_changes_the_owner_and_nothing_else),
        case!(max_hold_gives_the_lock_up),
        case!(max_hold_does_not_touch_the_next_holder),
        case!(hold_at_least_keeps_the_lock),
        case!(lock_delay_is_refused_where_it_is_not_declared).needs(Need::NoLockDelay),
        case!(lock_delay_keeps_the_key_closed)
            .needs(Need::LockDelay)
            .needs(Need::BreakLock),
        case!(a_ttl_is_refused_where_there_is_no_lease).needs(Need::NoLease),
        case!(several_keys_in_one_step).needs(Need::AcquireMany),
        case!(several_keys_in_one_step_are_refused_where_not_declared).needs(Need::NoAcquireMany),
        case!(a_broken_holder_notices).needs(Need::BreakLock),
        case!(breaking_is_refused_where_it_is_not_declared).needs(Need::NoBreakLock),
        case!(a_waker_may_use_the_lock),
        case!(a_loss_callback_may_use_the_lock),
        case!(readiness_tells_a_foreign_event_loop),
    ]
}

async fn a_detached_lock_stays_held_until_it_is_attached_and_released(
    context: &Context,
) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let (attempt, token) = (guard.attempt(), guard.fencing_token());
    let detached = guard.detach().await?;
    let other = context.lock_elsewhere("a")?;
    ensure!(other.try_acquire().await?.is_none(), "detaching released");
    let guard = lock.attach(detached.to_string().parse()?).await?;
    ensure_eq!(
        (guard.attempt(), guard.fencing_token()),
        (attempt, token),
        "attached as"
    );
    ensure!(guard.is_held(), "an attached lock is not held");
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    let kind = lock.attach(detached).await.err().map(|error| error.kind());
    ensure_eq!(
        kind,
        Some(ErrorKind::Lost),
        "attaching a released lock gave"
    );
    context.becomes_free(&other).await
}

async fn a_lock_is_detached_here_and_attached_in_another_process(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let agent = context.agent()?;
    let detached = lock.acquire().await?.detach().await?.to_string();
    let attach = Ask::on(Act::Attach { detached }, "a");
    agent.call(&attach).await?;
    ensure!(lock.try_acquire().await?.is_none(), "attaching released");
    match agent.call(&Ask::on(Act::Release, "a")).await? {
        Answer::Yes(true) => context.becomes_free(&lock).await,
        other => Err(Failure::new(format!(
            "release in the other process said {other:?}"
        ))),
    }
}

async fn a_transfer_changes_the_owner_and_nothing_else(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let (from, to) = (OwnerId::new(), OwnerId::new());
    let mut guard = lock
        .acquire_with(&AcquireOptions::new().owner(from))
        .await?;
    let token = guard.fencing_token();
    for owner in [from, to] {
        guard.transfer_to(owner).await?;
        let report = context.report(&lock).await?;
        let owners: Vec<_> = report.holders.iter().map(|party| party.owner).collect();
        ensure_eq!(owners, vec![Some(owner)], "owners");
    }
    ensure_eq!(guard.fencing_token(), token, "the fencing token is");
    ensure!(lock.try_acquire().await?.is_none(), "a transfer released");
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    Ok(())
}

async fn max_hold_gives_the_lock_up(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let limit = Duration::from_millis(50);
    let started = Instant::now();
    let guard = lock
        .acquire_with(&AcquireOptions::new().max_hold(limit))
        .await?;
    let reason = context.soon("the loss", guard.lost()).await?;
    ensure_eq!(reason, LossReason::MaxHold, "lost because");
    let held = Instant::now().saturating_duration_since(started);
    ensure!(held >= limit, "lost after {held:?}, max_hold was {limit:?}");
    ensure!(!guard.is_held(), "held after the loss");
    context.becomes_free(&context.lock_elsewhere("a")?).await?;
    ensure_eq!(
        guard.release().await?,
        Released::AlreadyLost,
        "release said"
    );
    Ok(())
}

async fn max_hold_does_not_touch_the_next_holder(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    // Long enough for a release that has to be confirmed by a busy server.
    let limit = Duration::from_millis(if context.lease_life().is_some() {
        1000
    } else {
        50
    });
    let options = AcquireOptions::new().max_hold(limit);
    let guard = lock.acquire_with(&options).await?;
    let lost = guard.lost();
    guard.release().await?;
    let next = lock.acquire().await?;
    // sleep: longer than max_hold, to see that nothing happens when it has passed
    tokio::time::sleep(limit + Duration::from_millis(100)).await;
    ensure!(lost.reason().is_none(), "a released lock was reported lost");
    ensure!(
        next.is_held(),
        "max_hold of the previous holder ended the next"
    );
    ensure!(
        lock.try_acquire().await?.is_none(),
        "max_hold of the previous holder freed the next"
    );
    drop(next);
    Ok(())
}

async fn hold_at_least_keeps_the_lock(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let at_least = Duration::from_millis(200);
    for released in [false, true] {
        let started = Instant::now();
        let options = AcquireOptions::new().hold_at_least(at_least);
        let guard = context
            .soon("the lock", lock.acquire_with(&options))
            .await??;
        if released {
            guard.release().await?;
        } else {
            drop(guard);
        }
        let next = context
            .soon("the lock after hold_at_least", other.acquire())
            .await??;
        let held = Instant::now().saturating_duration_since(started);
        ensure!(
            held >= at_least,
            "free after {held:?}, hold_at_least was {at_least:?}"
        );
        next.release().await?;
    }
    Ok(())
}

async fn lock_delay_is_refused_where_it_is_not_declared(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = AcquireOptions::new().lock_delay(Duration::from_secs(1));
    let kind = lock
        .try_acquire_with(&options)
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "a lock_delay gave");
    context.becomes_free(&lock).await
}

async fn lock_delay_keeps_the_key_closed(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let delay = Duration::from_millis(500);
    let options = context.options().lock_delay(delay);
    // A clean release opens the key at once.
    lock.acquire_with(&options).await?.release().await?;
    let guard = other.try_acquire_with(&options).await?;
    ensure!(guard.is_some(), "a clean release kept the key closed");
    drop(guard);
    let guard = context
        .soon("the lock", lock.acquire_with(&options))
        .await??;
    let started = Instant::now();
    lock.backend().break_lock(lock.key(), None).await?;
    let next = context
        .soon("the lock after the delay", other.acquire())
        .await??;
    let closed = Instant::now().saturating_duration_since(started);
    ensure!(
        closed >= delay,
        "open after {closed:?}, lock_delay was {delay:?}"
    );
    drop((guard, next));
    Ok(())
}

async fn a_ttl_is_refused_where_there_is_no_lease(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = AcquireOptions::new().ttl(Duration::from_secs(30));
    let kind = lock
        .try_acquire_with(&options)
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "a TTL gave");
    let kind = lock
        .backend()
        .renew(&[])
        .await
        .err()
        .map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "a renewal gave");
    let guard = lock.acquire().await?;
    ensure_eq!(guard.remaining(), None, "a grant without a lease has left");
    Ok(())
}

async fn several_keys_in_one_step(context: &Context) -> Outcome {
    let keys = [context.key("a")?, context.key("b")?];
    let blocker = context.lock_elsewhere("b")?.acquire().await?;
    let ask = |keys: &[lock_core::LockKey]| -> Outcome<Vec<_>> {
        keys.iter()
            .map(|key| Ok((key.clone(), context.request(Mode::Exclusive, Wait::Now)?)))
            .collect()
    };
    let backend = context.backend();
    let refused = backend.acquire_many(&ask(&keys)?).finish().await?;
    ensure!(refused.is_none(), "a set with a held key was granted");
    ensure!(
        !context.lock("a")?.is_locked().await?,
        "a refused set kept one of its keys"
    );
    blocker.release().await?;
    let grants = backend.acquire_many(&ask(&keys)?).finish().await?;
    let grants = grants.ok_or_else(|| Failure::new("a free set was contended"))?;
    ensure_eq!(grants.len(), 2, "grants");
    for (key, grant) in keys.iter().zip(&grants) {
        let other = Lock::new(context.client()?, key.clone());
        ensure!(
            other.try_acquire().await?.is_none(),
            "{key} is free after it was granted"
        );
        let released = backend.release(key, grant).finish().await?;
        ensure_eq!(released, Released::Released, "release said");
    }
    Ok(())
}

async fn several_keys_in_one_step_are_refused_where_not_declared(context: &Context) -> Outcome {
    let key = context.key("a")?;
    let wanted = [(key, context.request(Mode::Exclusive, Wait::Now)?)];
    let step = context.backend().acquire_many(&wanted).finish().await;
    let kind = step.err().map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "acquire_many gave");
    context.becomes_free(&context.lock("a")?).await
}

async fn a_broken_holder_notices(context: &Context) -> Outcome {
    let (lock, other) = (context.lock("a")?, context.lock_elsewhere("a")?);
    let guard = lock.acquire_with(&context.options()).await?;
    let broken = other.backend().break_lock(lock.key(), None).await?;
    ensure_eq!(broken, 1, "holders broken");
    context.soon("the loss", guard.lost()).await?;
    ensure!(!guard.is_held(), "held after it was broken");
    let next = context
        .soon("the lock after a break", other.acquire())
        .await??;
    ensure_eq!(
        guard.release().await?,
        Released::AlreadyLost,
        "release said"
    );
    ensure!(
        next.is_held(),
        "releasing a broken guard ended the next holder"
    );
    // An attempt that does not hold is not broken, and nobody else for it.
    let attempt = Some(lock_core::OwnerToken::mint());
    let broken = other.backend().break_lock(lock.key(), attempt).await?;
    ensure_eq!(broken, 0, "holders broken for a foreign attempt");
    ensure!(next.is_held(), "the wrong holder was broken");
    drop(next);
    Ok(())
}

async fn breaking_is_refused_where_it_is_not_declared(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let broken = lock.backend().break_lock(lock.key(), None).await;
    let kind = broken.err().map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::Unsupported), "breaking a lock gave");
    ensure_eq!(guard.release().await?, Released::Released, "release said");
    Ok(())
}

/// Uses the lock from inside its own wake-up. Never blocks: it may run on the thread that does I/O.
struct Meddler {
    lock: Lock,
    woken: AtomicUsize,
    failed: Mutex<Option<String>>,
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        let mut acquire = self.lock.acquire();
        if let Some(Err(error)) = acquire.try_take() {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some(error.to_string());
        }
        // Held or queued, it is given up here.
        drop(acquire);
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

async fn a_waker_may_use_the_lock(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let meddler = Arc::new(Meddler {
        lock: lock.clone(),
        woken: AtomicUsize::new(0),
        failed: Mutex::new(None),
    });
    let guard = lock.acquire().await?;
    let mut acquire = Box::pin(lock.acquire());
    let waker = Waker::from(Arc::clone(&meddler));
    let polled = acquire
        .as_mut()
        .poll(&mut std::task::Context::from_waker(&waker));
    ensure!(polled.is_pending(), "a held lock was granted");
    context.waiters(&lock, 1).await?;
    let release = tokio::task::spawn_blocking(move || guard.release_blocking());
    context
        .soon("a release that wakes a waker which uses the lock", release)
        .await???;
    context
        .eventually("the waker is called and comes back", async || {
            Ok(meddler.woken.load(Ordering::SeqCst) > 0)
        })
        .await?;
    let failed = meddler
        .failed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    ensure_eq!(failed, None, "using the lock in a waker gave");
    context.soon("the lock", acquire).await??.release().await?;
    Ok(())
}

async fn a_loss_callback_may_use_the_lock(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let options = AcquireOptions::new().max_hold(Duration::from_millis(20));
    let guard = lock.acquire_with(&options).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let inside = lock.clone();
    let panicking = guard.lost();
    panicking.on_lost(|_| std::panic::resume_unwind(Box::new("a callback panicked")));
    guard.lost().on_lost(move |reason| {
        let granted = inside
            .acquire()
            .wait()
            .and_then(|guard| guard.release_blocking());
        // The case has failed already when nobody listens.
        let _ = sender.send((reason, granted.is_ok()));
    });
    let told = context.soon("the callback", receiver.recv()).await?;
    ensure_eq!(
        told,
        Some((LossReason::MaxHold, true)),
        "the callback was told"
    );
    let more = context
        .soon("the end of the callbacks", receiver.recv())
        .await?;
    ensure_eq!(more, None, "a loss was told again");
    drop(guard);
    Ok(())
}

async fn readiness_tells_a_foreign_event_loop(context: &Context) -> Outcome {
    let lock = context.lock("a")?;
    let guard = lock.acquire().await?;
    let mut acquire = lock.acquire();
    let mut reader = acquire.readiness()?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        use std::io::Read as _;
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_ok() && sender.send(()).is_ok() {}
    });
    let mut guard = Some(guard);
    loop {
        let news = context.soon("news of the acquire", receiver.recv()).await?;
        ensure!(news.is_some(), "the pipe ended before the lock was granted");
        if let Some(outcome) = acquire.try_take() {
            ensure!(guard.is_none(), "a held lock was granted");
            outcome?.release().await?;
            return Ok(());
        }
        if let Some(guard) = guard.take() {
            context.waiters(&lock, 1).await?;
            guard.release().await?;
        }
    }
}
