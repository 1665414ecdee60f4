//! Attempts that must not wait: into one key or several, in one atomic step or not at all.

use std::sync::Arc;

use lock_core::{Error, Mode, Request};

use crate::client::Client;
use crate::error::{Failure, Reason, mode_conflict};
use crate::grant::Won;
use crate::layout::Place;
use crate::leave::Left;
use crate::line::{Entrant, Line};
use crate::queue::{Patience, Sought};
use crate::record::Record;
use crate::session::Session;
use crate::wire::{Answered, Compare, Operation, RangeResponse, Span, TxnRequest};

/// So often a decision is made anew because somebody else came between.
const TRIES: usize = 8;

/// What became of a set of attempts.
pub(crate) struct Entered {
    /// One for each; `None` if the session is over and another is to be tried.
    pub(crate) sought: Option<Vec<Sought>>,
    /// What may stand in the store all the same.
    pub(crate) left: Vec<Left>,
}

impl Entered {
    fn all(sought: Vec<Sought>) -> Self {
        Self {
            sought: Some(sought),
            left: Vec::new(),
        }
    }

    fn again() -> Self {
        Self {
            sought: None,
            left: Vec::new(),
        }
    }
}

/// What must not stand in the store for a newcomer to enter without knowing who does. Who waits
/// comes second: the servers look at each of them, and not at all once the first is refuted.
pub(crate) fn room_at_once(place: &Place, mode: Mode) -> [Compare; 2] {
    let holders = match mode {
        Mode::Shared => place.unshared_holders(),
        Mode::Exclusive | Mode::Permit(_) => place.holders(),
    };
    [Compare::empty(&holders), Compare::empty(&place.waiters())]
}

/// Enters all of them, or none.
pub(crate) async fn enter(
    client: &Arc<Client>,
    session: &Arc<Session>,
    wanted: &[(Place, Request)],
    patience: Patience,
) -> Result<Entered, Failure> {
    let first: Vec<Vec<u32>> = wanted
        .iter()
        .map(|(_, request)| Line::first_slots(request.mode))
        .collect();
    let mut slots = first;
    let mut lines: Option<Vec<Line>> = None;
    for _ in 0..TRIES {
        let gate_at = session.gate_at();
        let txn = transaction(client, session, gate_at, wanted, &slots, lines.as_deref());
        let answer = match client.cluster.txn(txn).await {
            Ok(answer) => answer,
            Err(failure) if failure.in_doubt => {
                return settle(client, session, gate_at, wanted, patience, failure).await;
            }
            Err(failure) if failure.reason == Reason::NoLease => {
                session.lose();
                return Ok(Entered::again());
            }
            Err(failure) => return Err(failure),
        };
        let revision = answer.revision();
        if answer.succeeded {
            let won = wanted.iter().zip(slots).map(|((place, request), slots)| {
                Sought::Won(won(place, request, session, revision, slots))
            });
            return Ok(Entered::all(won.collect()));
        }
        let ranges = answer.into_ranges();
        if !session.found(ranges.first()) {
            return Ok(Entered::again());
        }
        let found = read(wanted, ranges.get(1..).unwrap_or_default());
        match decide(wanted, &found) {
            Ok(admitted) => slots = admitted,
            Err(refused) => return Ok(refused),
        }
        lines = Some(found);
    }
    // Somebody came between each time: it is in use.
    Ok(Entered::all(contended(wanted)))
}

fn contended(wanted: &[(Place, Request)]) -> Vec<Sought> {
    wanted.iter().map(|_| Sought::Contended).collect()
}

fn refused(wanted: &[(Place, Request)], error: &Error) -> Vec<Sought> {
    let refused = |_| Sought::Refused(error.clone());
    wanted.iter().map(refused).collect()
}

fn transaction(
    client: &Client,
    session: &Session,
    gate_at: i64,
    wanted: &[(Place, Request)],
    slots: &[Vec<u32>],
    lines: Option<&[Line]>,
) -> TxnRequest {
    let mut txn = TxnRequest::default();
    txn.compare.push(session.is_open(gate_at));
    txn.failure
        .push(Operation::read(&Span::key(session.gate().to_vec())));
    for (at, (place, request)) in wanted.iter().enumerate() {
        let record = Record::new(&place.key, request, client.process());
        let entrant = Entrant::new(request, session.lease, record);
        let slots = slots.get(at).cloned().unwrap_or_default();
        match lines.and_then(|lines| lines.get(at)) {
            Some(line) => {
                let enter = line.enter(&entrant, slots);
                txn.compare.extend(enter.compare);
                txn.success.extend(enter.success);
            }
            None => {
                txn.compare.extend(room_at_once(place, request.mode));
                txn.success.push(entrant.put(place, slots));
            }
        }
        txn.failure.push(Operation::read(&place.all()));
    }
    txn
}

fn read(wanted: &[(Place, Request)], ranges: &[RangeResponse]) -> Vec<Line> {
    wanted
        .iter()
        .zip(ranges)
        .map(|((place, _), range)| Line::read(place, range))
        .collect()
}

/// The permits of each if there is room for all, else why not.
fn decide(wanted: &[(Place, Request)], lines: &[Line]) -> Result<Vec<Vec<u32>>, Entered> {
    let mut admitted = Vec::new();
    for ((place, request), line) in wanted.iter().zip(lines) {
        if let Some(other) = line.conflict(request.mode, request.attempt) {
            let error = mode_conflict(&place.key, request.mode, other);
            return Err(Entered::all(refused(wanted, &error)));
        }
        match line.admits(request.mode, request.priority) {
            Some(slots) => admitted.push(slots),
            None => return Err(Entered::all(contended(wanted))),
        }
    }
    Ok(admitted)
}

/// The reply was lost: ends the request if it is still on its way, and looks what it did.
async fn settle(
    client: &Arc<Client>,
    session: &Arc<Session>,
    gate_at: i64,
    wanted: &[(Place, Request)],
    patience: Patience,
    mut failure: Failure,
) -> Result<Entered, Failure> {
    let spans: Vec<Span> = wanted.iter().map(|(place, _)| place.all()).collect();
    let left = |in_doubt| {
        let left = wanted.iter();
        left.map(|(place, request)| Left::new(place, request, session, in_doubt))
            .collect()
    };
    loop {
        if let Err(error) = patience.again(failure).await {
            return Ok(Entered {
                sought: Some(refused(wanted, &error)),
                left: left(Some(gate_at)),
            });
        }
        let looked = match session.shut_out(&client.cluster, gate_at).await {
            Ok(()) => client.cluster.ranges(&spans).await,
            Err(failure) => Err(failure),
        };
        let ranges = match looked {
            Ok(ranges) => ranges,
            Err(next) if next.reason == Reason::NoLease => return Ok(Entered::again()),
            Err(next) => {
                failure = next;
                continue;
            }
        };
        let lines = read(wanted, &ranges);
        let held: Vec<Sought> = wanted
            .iter()
            .zip(&lines)
            .filter_map(|((place, request), line)| {
                let holder = line.holder(request.attempt)?;
                let slots = holder.record.slots.clone();
                let won = won(place, request, session, holder.created, slots);
                Some(Sought::Won(won))
            })
            .collect();
        return Ok(match held.len() {
            0 => Entered::again(),
            all if all == wanted.len() => Entered::all(held),
            // Somebody broke one of them since.
            _ => Entered {
                sought: Some(contended(wanted)),
                left: left(None),
            },
        });
    }
}

fn won(
    place: &Place,
    request: &Request,
    session: &Arc<Session>,
    created: i64,
    slots: Vec<u32>,
) -> Box<Won> {
    Box::new(Won {
        place: place.clone(),
        request: request.clone(),
        session: Arc::clone(session),
        created,
        slots,
        interest: None,
    })
}
