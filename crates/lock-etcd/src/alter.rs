//! Changes to a grant that is held: the record is written anew, if it is still ours.

use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Change, Error, ErrorKind, Fence, Grant, LossReason, Mode, OwnerId, OwnerToken, Result, runtime,
};

use crate::client::{Client, Hold, HoldState};
use crate::error::{Failure, error, mode_conflict, not_held};
use crate::grant;
use crate::layout::Place;
use crate::line::Line;
use crate::record::Record;
use crate::watch::Target;
use crate::wire::{
    Answered, Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, Operation, Span, TxnRequest,
};

/// How long to wait before the store is asked again.
const AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn alter(
    client: Arc<Client>,
    place: Place,
    grant: Grant,
    change: Change,
) -> Result<Grant> {
    let lost = || not_held(&place.key);
    let hold = client.table.hold(grant.attempt).ok_or_else(lost)?;
    let _only_one = hold.changing.lock().await;
    if !hold.session.is_alive() {
        return Err(lost());
    }
    match change {
        Change::Downgrade => downgrade(&client, &hold, grant).await,
        Change::Transfer(owner) => {
            let record = hold.state().record.owned_by(Some(owner), client.process());
            rewrite(&client, &hold, &record, hold.session.lease).await?;
            hold.state().record = record;
            Ok(grant)
        }
        Change::Detach => {
            let lease = new_lease(&client, hold.session.ttl).await?;
            let record = hold.state().record.clone();
            rewrite(&client, &hold, &record, lease).await?;
            // From now on somebody else's, unless it was given up meanwhile.
            client.watches.remove(Target::Holder(hold.attempt));
            client.table.detached(&hold);
            client.finish_if_done();
            Ok(grant)
        }
        _ => Err(Error::unsupported(crate::error::NAME, "this change")),
    }
}

/// Writes the record of a hold again, under a lease. Done twice it is the same.
async fn rewrite(client: &Client, hold: &Hold, record: &Record, lease: i64) -> Result<()> {
    let stand = hold.stand();
    let key = hold.place.holder(stand.mode, stand.attempt);
    let mut txn = TxnRequest::default();
    txn.compare
        .push(Compare::created_at(key.clone(), stand.created));
    txn.success
        .push(Operation::put(key, record.to_bytes(), lease));
    let answer = persist(client, || client.cluster.txn(txn.clone())).await?;
    if answer.succeeded {
        return Ok(());
    }
    hold.validity.lose(LossReason::Revoked);
    Err(not_held(&hold.place.key))
}

/// Puts the shared record in the place of the exclusive one. Those who wait look themselves.
async fn downgrade(client: &Client, hold: &Hold, mut grant: Grant) -> Result<Grant> {
    let place = &hold.place;
    let stand = hold.stand();
    let record = hold.state().record.clone();
    let before = place.holder(stand.mode, stand.attempt);
    let after = place.holder(Mode::Shared, stand.attempt);
    let mut txn = TxnRequest::default();
    txn.compare
        .push(Compare::created_at(before.clone(), stand.created));
    for span in place.conflicts(Mode::Shared) {
        txn.compare.push(Compare::empty(&span));
    }
    txn.success.push(Operation::delete(before));
    let lease = hold.session.lease;
    txn.success
        .push(Operation::put(after, record.to_bytes(), lease));
    txn.failure.push(Operation::read(&place.all()));
    let answer = persist(client, || client.cluster.txn(txn.clone())).await?;
    let mut created = answer.revision();
    if !answer.succeeded {
        let ranges = answer.into_ranges();
        let line = ranges.last().map(|range| Line::read(place, range));
        let held = line.as_ref().and_then(|line| line.holder(stand.attempt));
        let other = line
            .as_ref()
            .and_then(|line| line.conflict(Mode::Shared, stand.attempt));
        match (held.map(|held| (held.mode, held.created)), other) {
            // The first try was carried out, and its reply lost.
            (Some((Mode::Shared, since)), _) => created = since,
            (Some(_), Some(other)) => {
                return Err(mode_conflict(&place.key, Mode::Shared, other));
            }
            _ => {
                hold.validity.lose(LossReason::Revoked);
                return Err(not_held(&place.key));
            }
        }
    }
    client.watches.remove(Target::Holder(hold.attempt));
    hold.changed_to(HoldState {
        mode: Mode::Shared,
        created,
        record,
    });
    grant.fence = Fence::Shared(None);
    Ok(grant)
}

/// A lock that was taken over, on its way to whoever asked. If nobody takes it, it is detached again.
pub(crate) struct Attached {
    client: Arc<Client>,
    place: Place,
    grant: Option<Grant>,
}

impl Attached {
    pub(crate) fn take(mut self) -> Grant {
        self.grant
            .take()
            .unwrap_or_else(|| unreachable!("a grant is taken once"))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            let (client, place) = (Arc::clone(&self.client), self.place.clone());
            let detach = alter(client, place, grant, Change::Detach);
            runtime::handle().spawn(detach);
        }
    }
}

pub(crate) async fn attach(
    client: Arc<Client>,
    place: Place,
    grant: Grant,
    owner: Option<OwnerId>,
    mode: Mode,
) -> Result<Attached> {
    let grant = take_over(&client, &place, &grant, owner, mode).await?;
    Ok(Attached {
        client,
        place,
        grant: Some(grant),
    })
}

/// Takes over a detached lock, wherever it was detached.
async fn take_over(
    client: &Arc<Client>,
    place: &Place,
    grant: &Grant,
    owner: Option<OwnerId>,
    mode: Mode,
) -> Result<Grant> {
    if let Some(hold) = client.table.hold(grant.attempt) {
        // It never left; or somebody attached it before.
        let held = Grant {
            attempt: grant.attempt,
            fence: grant.fence,
            validity: Some(hold.validity.clone()),
        };
        return Ok(held);
    }
    let session = persist(client, || client.session(None)).await?;
    let key = place.holder(mode, grant.attempt);
    let span = Span::key(key.clone());
    let found = persist(client, || client.cluster.range(&span)).await?;
    let entry = found
        .kvs
        .into_iter()
        .next()
        .ok_or_else(|| not_held(&place.key))?;
    let record = Record::parse(&entry.value)
        .unwrap_or_else(|| Record::unreadable(&place.key))
        .owned_by(owner, client.process());
    loop {
        let gate_at = session.gate_at();
        let mut txn = TxnRequest::default();
        txn.compare
            .push(Compare::created_at(key.clone(), entry.create_revision));
        txn.compare.push(session.is_open(gate_at));
        txn.success.push(Operation::put(
            key.clone(),
            record.to_bytes(),
            session.lease,
        ));
        txn.failure
            .push(Operation::read(&Span::key(session.gate().to_vec())));
        let answer = persist(client, || client.cluster.txn(txn.clone())).await?;
        if answer.succeeded {
            break;
        }
        // Unless the gate was written anew for somebody else, which changes nothing here.
        if !session.found(answer.into_ranges().first()) || session.gate_at() == gate_at {
            return Err(not_held(&place.key));
        }
    }
    if entry.lease != session.lease {
        revoke(client, entry.lease);
    }
    let fence = grant::fence(mode, entry.create_revision, &record.slots)?;
    let state = HoldState {
        mode,
        created: entry.create_revision,
        record,
    };
    let attempt: OwnerToken = grant.attempt;
    let (hold, grant) = grant::holding(client, place.clone(), attempt, session, state, fence, None);
    client.table.adopt(hold);
    Ok(grant)
}

/// A lease of its own, for a lock that nobody renews.
async fn new_lease(client: &Client, ttl: Duration) -> Result<i64> {
    let request = LeaseGrantRequest {
        ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
    };
    let path = "/etcdserverpb.Lease/LeaseGrant";
    let granted: LeaseGrantResponse =
        persist(client, || client.cluster.write(path, request)).await?;
    Ok(granted.id)
}

/// The lease that a detached lock lived by is of no use any more; if this fails, it expires.
fn revoke(client: &Arc<Client>, lease: i64) {
    let client = Arc::clone(client);
    tokio::spawn(async move {
        let request = LeaseRevokeRequest { id: lease };
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let answer: Result<LeaseRevokeResponse, Failure> =
            client.cluster.write(path, request).await;
        drop(answer);
    });
}

/// Asks again until there is an answer, as long as the patience lasts. Only for what may be done
/// twice.
async fn persist<T, F>(client: &Client, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Failure>>,
{
    let until = Instant::now() + client.config().patience;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(failure) if failure.passing && !until.has_passed() => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(failure) if failure.in_doubt => {
                return Err(error(
                    ErrorKind::Unavailable,
                    format!(
                        "whether it was changed is open: {}",
                        failure.into_error().message()
                    ),
                ));
            }
            Err(failure) => return Err(failure.into_error()),
        }
    }
}
