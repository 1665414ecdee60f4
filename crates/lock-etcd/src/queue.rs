//! One attempt that may wait: into the line, until it is its turn.
//!
//! A task of the backend owns it, from before anything is sent until the store has nothing of it but
//! a grant that somebody has. The caller's future only listens.

use std::sync::Arc;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{Error, Wait};

use crate::client::{Asking, Client};
use crate::enter;
use crate::error::{Failure, Reason, mode_conflict};
use crate::grant::{self, Won};
use crate::leave::{self, Left};
use crate::line::{Entrant, Line};
use crate::mirror::{Interest, News};
use crate::record::Record;
use crate::session::Session;
use crate::wire::{Answered, Compare, Operation, Span, TxnRequest, TxnResponse};

/// How long to wait before a server is asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// An acquire that cannot reach a server says so this long before its deadline, not after it.
const BEFORE_DEADLINE: Duration = Duration::from_millis(50);

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Sought {
    Won(Box<Won>),
    Contended,
    Refused(Error),
    /// It was given up.
    Over,
}

/// How long to try to reach a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(Instant);

impl Patience {
    pub(crate) fn new(client: &Client, wait: Wait) -> Self {
        let ends = Instant::now() + client.config().patience;
        match wait.deadline() {
            Some(deadline) => Self(ends.min(deadline - BEFORE_DEADLINE)),
            None => Self(ends),
        }
    }

    /// Waits a little, or says what to tell the caller.
    pub(crate) async fn again(self, failure: Failure) -> Result<(), Error> {
        if !failure.passing || self.0.has_passed() {
            return Err(failure.into_error());
        }
        tracing::debug!(error = %failure.into_error(), "trying again");
        tokio::time::sleep(AGAIN.min(self.0.remaining())).await;
        Ok(())
    }
}

pub(crate) struct Attempt {
    client: Arc<Client>,
    asking: Arc<Asking>,
    patience: Patience,
    interest: Option<Interest>,
    /// What may stand in the store.
    left: Option<Left>,
}

/// What a transaction did for an attempt.
enum Step {
    Won(i64, Vec<u32>),
    /// Its record stands since this revision.
    Queued(i64),
    Refused(Error),
    /// Nothing: the session has changed.
    Again,
}

impl Attempt {
    pub(crate) fn new(client: Arc<Client>, asking: Arc<Asking>) -> Self {
        let patience = Patience::new(&client, asking.request.wait);
        Self {
            client,
            asking,
            patience,
            interest: None,
            left: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let sought = self.seek().await;
        let (client, asking) = (Arc::clone(&self.client), Arc::clone(&self.asking));
        let attempt = asking.request.attempt;
        let answer = match sought {
            Sought::Won(won) => {
                let left = Left::holder(&won);
                match grant::hold(&client, *won) {
                    Ok((hold, grant)) if client.table.granted(&asking, &hold) => {
                        asking.answer(Ok(Some(grant)));
                        return;
                    }
                    Ok(_) => {
                        self.left = Some(left);
                        None
                    }
                    Err(error) => {
                        self.left = Some(left);
                        Some(Err(error))
                    }
                }
            }
            Sought::Contended => Some(Ok(None)),
            Sought::Refused(error) => Some(Err(error)),
            Sought::Over => None,
        };
        drop(self.interest.take());
        match &self.left {
            None => client.table.forget(attempt),
            Some(_) => client.table.leaving(attempt, &asking.place.key),
        }
        if let Some(answer) = answer {
            asking.answer(answer);
        }
        if let Some(left) = self.left.take() {
            leave::clear(&client, left).await;
            client.table.forget(attempt);
        }
        client.finish_if_done();
    }

    async fn seek(&mut self) -> Sought {
        let (client, asking) = (Arc::clone(&self.client), Arc::clone(&self.asking));
        loop {
            if asking.is_over() {
                return Sought::Over;
            }
            let failure = match client.session(asking.request.ttl).await {
                Ok(session) => match self.seek_in(&session).await {
                    Ok(Some(sought)) => return sought,
                    Ok(None) => {
                        // The servers answer: patience is for those that do not.
                        self.patience = Patience::new(&client, asking.request.wait);
                        continue;
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            tokio::select! {
                again = self.patience.again(failure) => if let Err(error) = again {
                    return Sought::Refused(error);
                },
                () = asking.ended() => return Sought::Over,
            }
        }
    }

    /// Within one session. `None`: it is over, try another.
    async fn seek_in(&mut self, session: &Arc<Session>) -> Result<Option<Sought>, Failure> {
        let asking = Arc::clone(&self.asking);
        if asking.request.wait == Wait::Now {
            let wanted = [(asking.place.clone(), asking.request.clone())];
            return enter::enter(&self.client, session, &wanted, self.patience)
                .await
                .map(|entered| {
                    self.left = entered.left.into_iter().next();
                    entered.sought.map(|mut sought| sought.remove(0))
                });
        }
        let interest = match self.interest.take() {
            Some(interest) => interest,
            None => self.client.mirror.follow(&asking.place),
        };
        let entry = Arc::clone(interest.entry());
        self.interest = Some(interest);
        let attempt = asking.request.attempt;
        let mut news = entry.join(attempt);
        let step = self.queue(session).await;
        match step {
            Ok(Step::Queued(revision)) => {
                entry.queued(attempt, revision);
                self.client.watch_shard(asking.place.shard);
                self.client.look(&entry);
            }
            other => {
                entry.part(attempt);
                return Ok(match other? {
                    Step::Won(created, slots) => Some(self.won(session, created, slots)),
                    Step::Refused(error) => Some(Sought::Refused(error)),
                    Step::Queued(_) | Step::Again => None,
                });
            }
        }
        let sought = tokio::select! {
            news = news.recv() => match news {
                Some(News::Granted(created, slots)) => Some(self.won(session, created, slots)),
                Some(News::Gone) | None => None,
            },
            () = asking.ended() => Some(Sought::Over),
            _ = session.validity.lost() => None,
        };
        entry.part(attempt);
        Ok(sought)
    }

    fn won(&mut self, session: &Arc<Session>, created: i64, slots: Vec<u32>) -> Sought {
        self.left = None;
        // A line that is known is followed on, to hand over in one step.
        let interest = self.interest.take();
        let interest = interest.filter(|interest| interest.entry().has_line());
        Sought::Won(Box::new(Won {
            place: self.asking.place.clone(),
            request: self.asking.request.clone(),
            session: Arc::clone(session),
            created,
            slots,
            interest,
        }))
    }

    /// Enters a free key, or the line of one that is not, in one step.
    async fn queue(&mut self, session: &Arc<Session>) -> Result<Step, Failure> {
        let (place, request) = (&self.asking.place, &self.asking.request);
        let record = Record::new(&place.key, request, self.client.process());
        let entrant = Entrant::new(request, session.lease, record.clone());
        let gate_at = session.gate_at();
        let open = session.is_open(gate_at);
        let reads = self.reads();
        let conflicts = place.conflicts(request.mode);
        let mut line_up = TxnRequest::default();
        line_up.compare.push(open.clone());
        line_up.compare.extend(conflicts.iter().map(Compare::empty));
        let waiter = place.waiter(request.mode, request.priority, request.attempt);
        line_up
            .success
            .push(Operation::put(waiter, record.to_bytes(), session.lease));
        if reads {
            line_up.success.push(Operation::read(&place.all()));
        }
        if !conflicts.is_empty() {
            line_up.failure.push(Operation::read(&place.all()));
        }
        let mut txn = TxnRequest::default();
        txn.compare.push(open);
        txn.compare.extend(enter::room_at_once(place, request.mode));
        txn.success
            .push(entrant.put(place, Line::first_slots(request.mode)));
        txn.failure
            .push(Operation::read(&Span::key(session.gate().to_vec())));
        txn.failure.push(Operation::txn(line_up));
        self.left = Some(Left::new(place, request, session, None));
        let answer = self.client.cluster.txn(txn).await;
        if let (true, Some(interest)) = (reads, &self.interest) {
            interest.entry().has_read();
        }
        match answer {
            Ok(answer) => Ok(self.queued(session, answer)),
            Err(failure) if failure.in_doubt => self.settle(session, gate_at, failure).await,
            Err(failure) => {
                self.left = None;
                if failure.reason == Reason::NoLease {
                    session.lose();
                    return Ok(Step::Again);
                }
                Err(failure)
            }
        }
    }

    /// Whether to read the line in the step that makes a record: it is neither followed here, nor
    /// being read by another one of this process.
    fn reads(&self) -> bool {
        let Some(interest) = &self.interest else {
            return true;
        };
        let entry = interest.entry();
        let followed = self.client.mirror.is_live(self.asking.place.shard) && entry.has_line();
        !followed && entry.reads()
    }

    fn queued(&mut self, session: &Arc<Session>, answer: TxnResponse) -> Step {
        let request = &self.asking.request;
        let revision = answer.revision();
        if answer.succeeded {
            return Step::Won(revision, Line::first_slots(request.mode));
        }
        let in_line = answer.inner_succeeded();
        let ranges = answer.into_ranges();
        if in_line {
            if let Some(range) = ranges.get(1) {
                self.client.take_in(&self.asking.place, Some(range));
            }
            return Step::Queued(revision);
        }
        self.left = None;
        if !session.found(ranges.first()) {
            return Step::Again;
        }
        let line = ranges
            .get(1)
            .map(|range| Line::read(&self.asking.place, range));
        let conflict = line.and_then(|line| line.conflict(request.mode, request.attempt));
        conflict.map_or(Step::Again, |other| {
            Step::Refused(mode_conflict(&self.asking.place.key, request.mode, other))
        })
    }

    /// The reply was lost: ends the request if it is still on its way, and looks what it did.
    async fn settle(
        &mut self,
        session: &Arc<Session>,
        gate_at: i64,
        mut failure: Failure,
    ) -> Result<Step, Failure> {
        let (client, asking) = (Arc::clone(&self.client), Arc::clone(&self.asking));
        let (place, request) = (&asking.place, &asking.request);
        self.left = Some(Left::new(place, request, session, Some(gate_at)));
        loop {
            if asking.is_over() {
                return Err(failure);
            }
            if let Err(error) = self.patience.again(failure).await {
                return Ok(Step::Refused(error));
            }
            let looked = match session.shut_out(&client.cluster, gate_at).await {
                Ok(()) => client.cluster.range(&place.all()).await,
                Err(failure) => Err(failure),
            };
            match looked {
                Ok(range) => {
                    let Some(line) = client.take_in(place, Some(&range)) else {
                        return Ok(Step::Again);
                    };
                    if let Some(holder) = line.holder(request.attempt) {
                        return Ok(Step::Won(holder.created, holder.record.slots.clone()));
                    }
                    if line.waits(request.attempt) {
                        self.left = Some(Left::new(place, request, session, None));
                        return Ok(Step::Queued(line.revision));
                    }
                    self.left = None;
                    return Ok(Step::Again);
                }
                Err(next) if next.reason == Reason::NoLease => {
                    self.left = None;
                    return Ok(Step::Again);
                }
                Err(next) => failure = next,
            }
        }
    }
}
