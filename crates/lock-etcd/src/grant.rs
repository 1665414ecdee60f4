//! From a record in the store to a grant.

use std::sync::{Arc, Mutex};

use lock_core::{Error, ErrorKind, Fence, FencingNumber, Grant, Mode, Request, Slot};

use crate::client::{Client, Hold, HoldState};
use crate::error::error;
use crate::fenced::Ownership;
use crate::layout::Place;
use crate::mirror::Interest;
use crate::record::Record;
use crate::session::Session;

/// An attempt that holds, by a record that was created at a revision.
#[derive(Debug)]
pub(crate) struct Won {
    pub(crate) place: Place,
    pub(crate) request: Request,
    pub(crate) session: Arc<Session>,
    pub(crate) created: i64,
    pub(crate) slots: Vec<u32>,
    pub(crate) interest: Option<Interest>,
}

/// Makes a hold of it, and the grant for the caller.
pub(crate) fn hold(client: &Arc<Client>, won: Won) -> Result<(Arc<Hold>, Grant), Error> {
    let Won {
        place,
        request,
        session,
        created,
        slots,
        interest,
    } = won;
    let fence = fence(request.mode, created, &slots)?;
    let record = Record::new(&place.key, &request, client.process()).holding(slots);
    let state = HoldState {
        mode: request.mode,
        created,
        record,
    };
    let (hold, grant) = holding(
        client,
        place,
        request.attempt,
        session,
        state,
        fence,
        interest,
    );
    Ok((hold, grant))
}

/// The same for a record that is known already.
pub(crate) fn holding(
    client: &Arc<Client>,
    place: Place,
    attempt: lock_core::OwnerToken,
    session: Arc<Session>,
    state: HoldState,
    fence: Fence,
    interest: Option<Interest>,
) -> (Arc<Hold>, Grant) {
    let state = Arc::new(Mutex::new(state));
    let proof = Ownership::new(client, &place, attempt, &state);
    let validity = session.validity.part_with(Arc::new(proof));
    let grant = Grant {
        attempt,
        fence,
        validity: Some(validity.clone()),
    };
    let hold = Hold::new(place, attempt, session, validity, state, interest);
    (Arc::new(hold), grant)
}

/// What a resource can check of a record that was created at a revision.
pub(crate) fn fence(mode: Mode, created: i64, slots: &[u32]) -> Result<Fence, Error> {
    match mode {
        Mode::Exclusive => u64::try_from(created)
            .ok()
            .and_then(FencingNumber::from_base)
            .map(Fence::Exclusive)
            .ok_or_else(|| {
                error(
                    ErrorKind::Backend,
                    format!("revision {created} is past the last fencing number"),
                )
            }),
        Mode::Shared => Ok(Fence::Shared(None)),
        Mode::Permit(_) => Ok(Fence::Permit(Slot(slots.first().copied().unwrap_or(0)))),
    }
}
