//! What the server says.

use lock_core::clock::Instant;
use lock_core::{
    Change, Error, ErrorKind, Grant, LeaseTerms, LockKey, LossReason, Mode, OwnerToken, Released,
    Renewal, Renewed, Validity, runtime,
};

use super::{Driver, HEED, Link};
use crate::network::backend::NAME;
use crate::network::calls::{Purpose, indeterminate, unavailable};
use crate::network::plant::Plant;
use crate::network::pledges::Held;
use crate::network::server::Down;
use crate::network::wire::{Answer, Ask, Granted, Push};

impl Driver {
    pub(super) fn hear(&mut self, message: Down) {
        self.heard = Instant::now();
        match message {
            Down::Push(Push::Offer { key, attempt }) => self.offered(key, attempt),
            Down::Push(Push::Loss { attempt }) => self.broken(attempt),
            Down::Answer {
                answer: Answer::Welcome,
                ..
            } => {
                if matches!(self.link, Link::Greeting(..)) {
                    self.connected();
                }
            }
            Down::Answer { id, answer } => {
                if let Some(call) = self.calls.take(id)
                    && let Some(sent) = call.sent
                {
                    self.answered(id, call.purpose, sent, answer);
                }
            }
        }
    }

    fn answered(&mut self, number: u64, purpose: Purpose, sent: Instant, answer: Answer) {
        match purpose {
            Purpose::Attempt(key, attempt) => {
                self.attempt_answered(number, &key, attempt, sent, answer);
            }
            Purpose::Cancel(attempt) => {
                self.pledges.paid(attempt);
                self.settle_closing();
            }
            Purpose::Renew { batch, listener } => {
                let Answer::Renewed(alive) = answer else {
                    return;
                };
                let outcomes = self.renewed(&batch, sent, &alive);
                if let Some(listener) = listener {
                    let _ = listener.send(Ok(outcomes));
                }
            }
            Purpose::Release {
                attempt,
                again,
                listener,
                ..
            } => {
                self.pledges.end(attempt);
                let outcome = match answer {
                    Answer::Released(true) => Ok(Released::Released),
                    _ if again => Err(indeterminate("the release")),
                    _ => Ok(Released::AlreadyLost),
                };
                let _ = listener.send(outcome);
            }
            Purpose::Alter {
                key,
                grant,
                change,
                listener,
            } => {
                let outcome = self.altered(&key, &grant, change, sent, answer);
                if let Err(Ok(unheard)) = listener.send(outcome)
                    && matches!(change, Change::Attach { .. })
                {
                    // Nobody took it over: it stays detached.
                    self.pledges.held.remove(&unheard.attempt);
                }
            }
            Purpose::AcquireMany { wanted, listener } => {
                let Answer::GrantedMany(granted) = answer else {
                    let _ = listener.send(refusal(answer, None));
                    return;
                };
                if self.any_ended(&wanted) {
                    // Their cancels are on the way, behind the request that brought them.
                    return;
                }
                let grants = wanted
                    .iter()
                    .zip(granted)
                    .map(|((key, request), granted)| {
                        self.take_hold(key, request.attempt, sent, granted)
                    })
                    .collect();
                let _ = listener.send(Ok(Some(grants)));
            }
            Purpose::Inspect { listener, .. } => {
                let Answer::Reports(mut reports) = answer else {
                    return;
                };
                for (key, attempt) in self.pledges.debts() {
                    let at = reports.iter().position(|report| report.key == *key);
                    let at = at.unwrap_or_else(|| {
                        reports.push(lock_core::KeyReport::idle(key.clone()));
                        reports.len() - 1
                    });
                    reports[at].debts.push(attempt);
                }
                let _ = listener.send(Ok(reports));
            }
            Purpose::Break { listener, .. } => {
                if let Answer::Broken(count) = answer {
                    let _ = listener.send(Ok(count));
                }
            }
        }
    }

    fn attempt_answered(
        &mut self,
        number: u64,
        key: &LockKey,
        attempt: OwnerToken,
        sent: Instant,
        answer: Answer,
    ) {
        if let Some(held) = self.pledges.held.get(&attempt) {
            // Asked twice, granted twice: the lease counts from the later one.
            if let (Answer::Granted(granted), Some(validity)) = (answer, &held.grant.validity) {
                validity.extend(self.deadline(sent, granted.ttl));
            }
            return;
        }
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            self.ended_answered(key, attempt, &answer);
            return;
        };
        if number < pending.heed_from {
            return;
        }
        pending.heed_from = number;
        match answer {
            Answer::Granted(granted) => {
                if self.deadline(sent, granted.ttl).has_passed() {
                    self.ask_pending(attempt);
                } else {
                    self.grant(key, attempt, sent, granted);
                }
            }
            Answer::Queued if self.server.has(Plant::NoSafetyNet) => {
                pending.ask_at = Instant::now() + HEED * 360;
            }
            Answer::Queued => pending.ask_at = Instant::now() + self.config.ask_again,
            Answer::Gone => self.ask_pending(attempt),
            other => {
                if let Some(pending) = self.pledges.pending.remove(&attempt) {
                    let _ = pending
                        .listener
                        .send(refusal(other, Some(pending.request.mode)));
                }
            }
        }
    }

    /// An acquire that was overtaken by the end of its attempt has brought it back at the server.
    fn ended_answered(&mut self, key: &LockKey, attempt: OwnerToken, answer: &Answer) {
        if self.server.has(Plant::OvertakenLeft) || self.server.has(Plant::AbandonedAskedAgain) {
            return;
        }
        let is_back = matches!(answer, Answer::Granted(_) | Answer::Queued);
        if is_back && self.pledges.has_ended(attempt) {
            self.abandon(key.clone(), attempt);
        }
    }

    /// A pending attempt holds now.
    fn grant(&mut self, key: &LockKey, attempt: OwnerToken, sent: Instant, granted: Granted) {
        let Some(pending) = self.pledges.pending.remove(&attempt) else {
            return;
        };
        let grant = self.take_hold(key, attempt, sent, granted);
        // The waker is the caller's, so it runs apart: one that blocks must not hold up the leases.
        // If nobody listens any more, the attempt waits here to be asked for again or abandoned.
        runtime::handle().spawn_blocking(move || pending.listener.send(Ok(Some(grant))));
    }

    fn take_hold(
        &mut self,
        key: &LockKey,
        attempt: OwnerToken,
        sent: Instant,
        granted: Granted,
    ) -> Grant {
        let terms = LeaseTerms {
            id: attempt,
            ttl: granted.ttl,
        };
        let grant = Grant {
            attempt,
            fence: granted.fence,
            validity: Some(Validity::leased(terms, self.deadline(sent, granted.ttl))),
        };
        let held = Held {
            key: key.clone(),
            grant: grant.clone(),
        };
        self.pledges.held.insert(attempt, held);
        grant
    }

    /// A lease counts from before its request was sent, and stops a margin early.
    fn deadline(&self, sent: Instant, ttl: std::time::Duration) -> Instant {
        if self.server.has(Plant::DeadlineFromReply) {
            return Instant::now() + ttl;
        }
        sent + ttl - ttl / 10
    }

    fn offered(&mut self, key: LockKey, attempt: OwnerToken) {
        let mut attempt = attempt;
        let unclaimed = self.server.has(Plant::OfferWithoutClaim);
        let by_key = self.server.has(Plant::OfferByKey);
        if by_key {
            let any = self.pledges.pending.iter();
            let any = any.filter(|(_, pending)| pending.key == key && pending.sent);
            attempt = any.map(|(attempt, _)| *attempt).next().unwrap_or(attempt);
        }
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            return;
        };
        if unclaimed || by_key {
            let number = u64::try_from(i64::MAX).unwrap_or_default() >> 12;
            let fence = lock_core::FencingNumber::from_base(number)
                .map_or(lock_core::Fence::Shared(None), lock_core::Fence::Exclusive);
            let ttl = pending.ttl;
            self.grant(&key, attempt, Instant::now(), Granted { fence, ttl });
            return;
        }
        pending.ask_at = Instant::now() + self.config.request_timeout;
        let purpose = Purpose::Attempt(key.clone(), attempt);
        self.send(purpose, Ask::Claim { key, attempt }, HEED);
    }

    /// An operator broke the attempt's lease, of which we may not have heard yet.
    fn broken(&mut self, attempt: OwnerToken) {
        if let Some(held) = self.pledges.held.remove(&attempt)
            && let Some(validity) = held.grant.validity
        {
            validity.lose(LossReason::Revoked);
        }
        let next = self.calls.next_number();
        if let Some(pending) = self.pledges.pending.get_mut(&attempt) {
            pending.heed_from = next;
            self.ask_pending(attempt);
        }
    }

    fn renewed(&mut self, batch: &[Renewal], sent: Instant, alive: &[bool]) -> Vec<Renewed> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for (renewal, alive) in batch.iter().zip(alive) {
            if *alive {
                let deadline = self.deadline(sent, renewal.ttl);
                if let Some(held) = self.pledges.held.get(&renewal.lease)
                    && let Some(validity) = &held.grant.validity
                {
                    validity.extend(deadline);
                }
                outcomes.push(Renewed::Until(deadline));
            } else {
                self.broken(renewal.lease);
                outcomes.push(Renewed::Lost);
            }
        }
        outcomes
    }

    fn altered(
        &mut self,
        key: &LockKey,
        grant: &Grant,
        change: Change,
        sent: Instant,
        answer: Answer,
    ) -> lock_core::Result<Grant> {
        let granted = match answer {
            Answer::Granted(granted) => granted,
            Answer::Gone => {
                self.broken(grant.attempt);
                let gone = Error::new(ErrorKind::Lost, "the server no longer has us as the holder");
                return Err(gone.with_backend(NAME));
            }
            other => {
                return refusal(other, Some(Mode::Shared))
                    .and_then(|none: Option<Grant>| none.ok_or_else(|| unavailable("the change")));
            }
        };
        Ok(match change {
            Change::Attach { .. } => self.take_hold(key, grant.attempt, sent, granted),
            Change::Detach => {
                self.pledges.held.remove(&grant.attempt);
                grant.clone()
            }
            _ => {
                let mut grant = grant.clone();
                grant.fence = granted.fence;
                if let Some(held) = self.pledges.held.get_mut(&grant.attempt) {
                    held.grant.fence = granted.fence;
                }
                grant
            }
        })
    }
}

/// What an answer that grants nothing means to a caller.
fn refusal<T>(answer: Answer, asked: Option<Mode>) -> lock_core::Result<Option<T>> {
    match answer {
        Answer::Conflict(other) => {
            let asked = asked.map_or_else(|| "a mode".to_owned(), |mode| mode.to_string());
            Err(Error::new(
                ErrorKind::ModeConflict,
                format!(
                    "asked for {asked} while {other} is held or waited for; use one mode per key"
                ),
            )
            .with_backend(NAME))
        }
        _ => Ok(None),
    }
}
