//! Several keys in one atomic step.

use std::sync::Arc;

use lock_core::{Error, Grant, LockKey, Request, Result};

use crate::client::{Asking, Client};
use crate::enter;
use crate::error::NAME;
use crate::grant;
use crate::layout::Place;
use crate::leave::{self, Left};
use crate::queue::{Patience, Sought};

/// A transaction may have 128 operations and comparisons; a key takes at most 3 and a few for those
/// it overtakes.
const AT_MOST: usize = 30;

pub(crate) fn check(wanted: &[(LockKey, Request)]) -> Result<()> {
    if wanted.len() > AT_MOST {
        return Err(Error::unsupported(
            NAME,
            format_args!("more than {AT_MOST} keys in one step"),
        ));
    }
    let mut lives = wanted.iter().map(|(_, request)| request.ttl);
    let first = lives.next();
    if lives.any(|life| Some(life) != first) {
        return Err(Error::unsupported(NAME, "several TTLs in one step"));
    }
    Ok(())
}

/// Takes all of them, or none: `None` when one is contended.
pub(crate) async fn acquire(
    client: Arc<Client>,
    wanted: Vec<(LockKey, Request)>,
) -> Result<Option<Vec<Grant>>> {
    let mut keys: Vec<&LockKey> = wanted.iter().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    if client.is_closed() {
        return Err(Error::closed(NAME));
    }
    if keys.len() < wanted.len() {
        // One of them would exclude the other.
        return Ok(None);
    }
    let askings: Vec<Arc<Asking>> = wanted
        .iter()
        .map(|(key, request)| Asking::new(client.place(key), request.clone()).0)
        .collect();
    for asking in &askings {
        client.table.begin(asking);
    }
    let (outcome, left) = seek(&client, &askings).await;
    for asking in &askings {
        if client.table.hold(asking.request.attempt).is_none() {
            client.table.forget(asking.request.attempt);
        }
    }
    for left in left {
        let (attempt, key) = (left.attempt(), left.key().clone());
        client.table.leaving(attempt, &key);
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            leave::clear(&client, left).await;
            client.table.forget(attempt);
            client.finish_if_done();
        });
    }
    client.finish_if_done();
    outcome
}

async fn seek(
    client: &Arc<Client>,
    askings: &[Arc<Asking>],
) -> (Result<Option<Vec<Grant>>>, Vec<Left>) {
    let wanted: Vec<(Place, Request)> = askings
        .iter()
        .map(|asking| (asking.place.clone(), asking.request.clone()))
        .collect();
    let Some((_, first)) = wanted.first() else {
        return (Ok(Some(Vec::new())), Vec::new());
    };
    let patience = Patience::new(client, first.wait);
    loop {
        let entered = match client.session(first.ttl).await {
            Ok(session) => enter::enter(client, &session, &wanted, patience).await,
            Err(failure) => Err(failure),
        };
        match entered {
            Ok(entered) => {
                if let Some(sought) = entered.sought {
                    return settle(client, askings, sought, entered.left);
                }
            }
            Err(failure) => {
                if let Err(error) = patience.again(failure).await {
                    return (Err(error), Vec::new());
                }
            }
        }
    }
}

/// All of them are held, or what is held of them is given back.
fn settle(
    client: &Arc<Client>,
    askings: &[Arc<Asking>],
    sought: Vec<Sought>,
    mut left: Vec<Left>,
) -> (Result<Option<Vec<Grant>>>, Vec<Left>) {
    let mut grants = Vec::new();
    let mut refused = None;
    for (asking, sought) in askings.iter().zip(sought) {
        let won = match sought {
            Sought::Won(won) => won,
            Sought::Refused(error) => {
                refused = Some(Err(error));
                continue;
            }
            Sought::Contended | Sought::Over => {
                refused.get_or_insert(Ok(None));
                continue;
            }
        };
        let holder = Left::holder(&won);
        match grant::hold(client, *won) {
            Ok((hold, grant)) if client.table.granted(asking, &hold) => grants.push(grant),
            Ok(_) => {
                // Given up meanwhile, and so will be the others.
                left.push(holder);
                refused.get_or_insert(Ok(None));
            }
            Err(error) => {
                left.push(holder);
                refused = Some(Err(error));
            }
        }
    }
    match refused {
        None => (Ok(Some(grants)), left),
        Some(refused) => {
            for grant in &grants {
                if let Some(hold) = client.table.give_up(grant.attempt) {
                    tokio::spawn(leave::end(Arc::clone(client), hold, None));
                }
            }
            (refused, left)
        }
    }
}
