//! Grants: made of answers and pushes, changed, lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{
    Change, ErrorKind, Fence, FencingNumber, Grant, LeaseTerms, LockKey, LossReason, Mode,
    OwnerToken, ReadVersion, Renewal, Result, Slot, Validity,
};

use super::Driver;
use super::answers::{Answer, conflict};
use super::calls::{Open, Purpose};
use super::time::Due;
use crate::backend::{Application, Listener};
use crate::confirm::Confirmer;
use crate::error::{error, lost};
use crate::names::Names;
use crate::pledges::Held;
use crate::script::{Call, Script};

/// The most that a lease is given up before its end.
const MOST_MARGIN: Duration = Duration::from_secs(1);

/// A lease counts from before its request was sent, and stops a margin early.
pub(super) fn deadline(sent: Instant, lease: Duration) -> Instant {
    sent + lease - (lease / 10).min(MOST_MARGIN)
}

/// Answers a caller. Its waker runs here, on the I/O thread: a panic in it must go no further.
pub(super) fn tell<T>(listener: Listener<T>, outcome: Result<T>) {
    let told = catch_unwind(AssertUnwindSafe(|| drop(listener.send(outcome))));
    if told.is_err() {
        tracing::error!("a waker panicked");
    }
}

pub(super) fn renewal(attempt: OwnerToken, held: &Held) -> Option<Renewal> {
    let terms = held.grant.validity.as_ref()?.lease()?;
    Some(Renewal {
        key: held.key.clone(),
        lease: attempt,
        ttl: terms.ttl,
    })
}

fn fence(mode: Mode, value: u64) -> Result<Fence> {
    match mode {
        Mode::Exclusive => FencingNumber::from_base(value)
            .map(Fence::Exclusive)
            .ok_or_else(|| {
                let message = "the server's clock is past 2095; there are no fencing numbers left";
                error(ErrorKind::Backend, message)
            }),
        Mode::Shared => Ok(Fence::Shared(version(value))),
        Mode::Permit(_) => Ok(Fence::Permit(Slot(
            u32::try_from(value).unwrap_or(u32::MAX),
        ))),
    }
}

fn version(value: u64) -> Option<ReadVersion> {
    let number = FencingNumber::from_base(value).filter(|_| value > 0);
    number.map(ReadVersion)
}

impl Driver {
    /// The server answered that an attempt holds.
    pub(super) fn acquired(&mut self, attempt: OwnerToken, sent: Instant, value: u64) {
        if let Some(held) = self.pledges.held.get(&attempt) {
            // Asked twice, granted twice: the lease counts from the later one.
            if let Some(validity) = &held.grant.validity
                && let Some(terms) = validity.lease()
            {
                validity.extend(deadline(sent, terms.ttl));
            }
            return;
        }
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            self.came_back(attempt);
            return;
        };
        let until = deadline(sent, pending.lease);
        if until.has_passed() {
            self.ask(attempt);
        } else {
            self.grant(attempt, until, value);
        }
    }

    /// An acquire that was overtaken by the end of its attempt has brought it back at the server.
    /// A debt ends it again, on its way already; without one there is nobody who would.
    pub(super) fn came_back(&mut self, attempt: OwnerToken) {
        if self.pledges.has_ended(attempt) && !self.pledges.owes(attempt) {
            tracing::warn!(%attempt, "an attempt that had ended was granted; it ends with its lease");
        }
    }

    /// A pending attempt holds until then.
    fn grant(&mut self, attempt: OwnerToken, until: Instant, value: u64) {
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            return;
        };
        let fence = match fence(pending.request.mode, value) {
            Ok(fence) => fence,
            Err(error) => return self.refuse(attempt, error),
        };
        let terms = LeaseTerms {
            id: attempt,
            ttl: pending.lease,
        };
        let grant = Grant {
            attempt,
            fence,
            validity: Some(Validity::leased(terms, until)),
        };
        if self.config.replicas > 0 && pending.request.mode == Mode::Exclusive {
            self.confirm(attempt, grant);
        } else {
            self.hand_out(attempt, grant);
        }
    }

    fn hand_out(&mut self, attempt: OwnerToken, grant: Grant) {
        let Some(pending) = self.pledges.pending.remove(&attempt) else {
            return;
        };
        self.leave_line(&pending.names, attempt);
        let held = Held {
            key: pending.key,
            names: pending.names,
            grant: grant.clone(),
            brief: None,
            astray: pending.astray,
        };
        self.pledges.held.insert(attempt, held);
        // If nobody listens any more, the attempt waits here to be asked for again or abandoned.
        tell(pending.listener, Ok(Some(grant)));
    }

    /// Keeps a grant back until enough replicas have it.
    fn confirm(&mut self, attempt: OwnerToken, grant: Grant) {
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            return;
        };
        let under_way = pending.unconfirmed.replace(grant).is_some();
        let slot = if self.nodes.is_cluster() {
            pending.names.slot()
        } else {
            0
        };
        let Some(node) = self.nodes.of(slot) else {
            return;
        };
        if !under_way {
            let (config, reporter) = (&self.config, &self.reporter);
            let confirmer = self.confirmers.entry(node.clone());
            let confirmer = confirmer
                .or_insert_with(|| Confirmer::start(config.clone(), node, reporter.clone()));
            confirmer.confirm(attempt);
        }
    }

    pub(super) fn confirmed(&mut self, attempt: OwnerToken, replicas: Result<u32>) {
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            return;
        };
        let Some(grant) = pending.unconfirmed.take() else {
            return;
        };
        let wanted = self.config.replicas;
        match replicas {
            Ok(count) if count >= wanted => {
                let lapsed = grant
                    .validity
                    .as_ref()
                    .is_some_and(|validity| validity.loss().is_some());
                if lapsed {
                    self.ask(attempt);
                } else {
                    self.hand_out(attempt, grant);
                }
            }
            Ok(count) => {
                let message =
                    format!("only {count} of {wanted} replicas have the grant; it was given back");
                self.refuse(attempt, error(ErrorKind::Unavailable, message));
            }
            Err(error) => self.refuse(attempt, error),
        }
    }

    /// A push: `g attempt value now life`, `p attempt` or `b attempt`.
    pub(super) fn pushed(&mut self, node: &str, text: &str) {
        let mut words = text.split(' ');
        let (Some(kind), Some(Ok(attempt))) = (words.next(), words.next().map(str::parse)) else {
            return;
        };
        match kind {
            "g" => {
                let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
                if let (Some(value), Some(now), Some(life)) = (number(), number(), number()) {
                    self.turn_came(node, attempt, value, now, Duration::from_millis(life));
                }
            }
            "p" => self.ask(attempt),
            "b" => {
                self.broken(attempt);
                self.ask(attempt);
            }
            _ => {}
        }
    }

    /// The lock is offered to a waiter. With the server's time mapped to ours the offer has a
    /// deadline, and is a grant; it is extended to the whole lease unless it is given back before.
    fn turn_came(
        &mut self,
        node: &str,
        attempt: OwnerToken,
        value: u64,
        granted: u64,
        life: Duration,
    ) {
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            return;
        };
        let names = pending.names.clone();
        self.mark_contended(&names);
        let clock = self.links.get(node).map(|link| link.clock);
        let granted = clock.and_then(|clock| clock.map(granted));
        let until = granted.map(|granted| deadline(granted, life));
        match until.filter(|until| !until.has_passed()) {
            Some(until) => {
                self.due_at(Instant::now() + life / 4, Due::Claim(attempt));
                self.grant(attempt, until, value);
            }
            // By a round trip of its own.
            None => self.ask(attempt),
        }
    }

    /// An operator broke the attempt's lease, or the server has forgotten it.
    pub(super) fn broken(&mut self, attempt: OwnerToken) {
        if let Some(held) = self.pledges.held.remove(&attempt)
            && let Some(validity) = held.grant.validity
        {
            validity.lose(LossReason::Revoked);
        }
    }

    pub(super) fn many_answered(
        &mut self,
        wanted: Vec<Application>,
        listener: Listener<Option<Vec<Grant>>>,
        sent: Instant,
        answer: &Answer,
    ) {
        match answer.number(0) {
            1 if self.any_ended(&wanted) => {
                // Their cancels are on the way, behind the request that brought them.
            }
            1 => {
                let mut grants = Vec::with_capacity(wanted.len());
                for (place, application) in wanted.into_iter().enumerate() {
                    let (attempt, mode) = (application.request.attempt, application.request.mode);
                    let Ok(fence) = fence(mode, answer.number(place + 2)) else {
                        self.abandon(application.key, application.names, attempt);
                        continue;
                    };
                    let until = deadline(sent, application.lease);
                    let key = application.key;
                    let grant = self.take_hold(
                        key,
                        application.names,
                        attempt,
                        fence,
                        application.lease,
                        until,
                    );
                    grants.push(grant);
                }
                let _ = listener.send(Ok(Some(grants)));
            }
            3 => {
                let asked = wanted.first().map(|application| application.request.mode);
                let _ = listener.send(Err(conflict(asked, &answer.text(2))));
            }
            4 => drop(listener.send(Err(crate::error::ended()))),
            _ => drop(listener.send(Ok(None))),
        }
    }

    fn take_hold(
        &mut self,
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
        fence: Fence,
        lease: Duration,
        until: Instant,
    ) -> Grant {
        let terms = LeaseTerms {
            id: attempt,
            ttl: lease,
        };
        let grant = Grant {
            attempt,
            fence,
            validity: Some(Validity::leased(terms, until)),
        };
        let held = Held {
            key,
            names,
            grant: grant.clone(),
            brief: None,
            astray: false,
        };
        self.pledges.held.insert(attempt, held);
        grant
    }

    pub(super) fn alter(
        &mut self,
        key: LockKey,
        names: Names,
        grant: Grant,
        change: Change,
        listener: Listener<Grant>,
    ) {
        let owner = match change {
            Change::Attach { owner, .. } => owner.map(|owner| owner.to_string()),
            _ => None,
        };
        let (word, argument) = match change {
            Change::Downgrade => ("downgrade", String::new()),
            Change::Transfer(owner) => ("owner", owner.to_string()),
            _ => ("keep", self.channel.clone()),
        };
        let call = Call::on(Script::alter(), &names)
            .arg(grant.attempt.to_string())
            .arg(word)
            .arg(argument)
            .arg(owner.unwrap_or_default());
        let slot = self.slot(&names);
        let purpose = Purpose::Alter {
            key,
            names,
            grant,
            change,
            listener,
        };
        self.transmit(Open::new(purpose, call, slot));
    }

    pub(super) fn altered(
        &mut self,
        key: &LockKey,
        names: &Names,
        grant: &Grant,
        change: Change,
        sent: Instant,
        answer: &Answer,
    ) -> Result<Grant> {
        match answer.number(0) {
            0 => {
                self.broken(grant.attempt);
                return Err(lost());
            }
            3 => return Err(conflict(Some(Mode::Shared), &answer.text(2))),
            _ => {}
        }
        let (value, lease) = (answer.number(2), Duration::from_millis(answer.number(3)));
        match change {
            Change::Attach { .. } => {
                let fence = match grant.fence {
                    Fence::Exclusive(_) => fence(Mode::Exclusive, value)?,
                    Fence::Shared(_) => Fence::Shared(version(value)),
                    slot @ Fence::Permit(_) => slot,
                };
                let until = deadline(sent, lease);
                let names = names.clone();
                Ok(self.take_hold(key.clone(), names, grant.attempt, fence, lease, until))
            }
            Change::Detach => {
                self.pledges.held.remove(&grant.attempt);
                Ok(grant.clone())
            }
            Change::Downgrade => {
                let mut grant = grant.clone();
                grant.fence = Fence::Shared(version(value));
                if let Some(held) = self.pledges.held.get_mut(&grant.attempt) {
                    held.grant.fence = grant.fence;
                    held.brief = None;
                }
                Ok(grant)
            }
            _ => Ok(grant.clone()),
        }
    }
}
