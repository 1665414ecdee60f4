//! What the server says.

use lock_core::clock::Instant;
use lock_core::{Change, Error, ErrorKind, Mode, OwnerToken, Released, Renewal, Renewed};
use redis::{RedisResult, Value};

use super::Driver;
use super::attempts::leave_call;
use super::calls::{Open, Purpose};
use super::grants::tell;
use super::time::{Due, OFFER_LIFE, SLACK};
use crate::error::{error, indeterminate, unavailable};
use crate::party::EPOCH;

/// The longest that a waiter relies on pushes alone.
const SAFETY_NET: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a fence must outlive its lease, as `library.lua` has it.
const RESIDUE: std::time::Duration = std::time::Duration::from_secs(600);

impl Driver {
    pub(super) fn answered(&mut self, number: u64, result: RedisResult<Value>) {
        let Some(open) = self.calls.remove(&number) else {
            return;
        };
        let result = match result {
            // Somebody came, and made a hash of the stream.
            Err(failure) if open.call.needs_stream() && failure.code() == Some("WRONGTYPE") => {
                Ok(Answer::of(Value::Int(0)))
            }
            result => result.map(Answer::of),
        };
        let mut links = self.links.values_mut();
        if let Some(link) = links.find(|link| link.id == open.link) {
            link.heard = Instant::now();
            if let Ok(answer) = &result
                && let Some(now) = answer.now(&open.purpose)
            {
                link.clock.learn(open.sent, now);
            }
        }
        match result {
            Ok(answer) => self.answer(*open, &answer),
            Err(failure) => self.failed(*open, &failure),
        }
    }

    /// The node whose connection a call was sent over, if that is still there.
    pub(super) fn node_of(&self, open: &Open) -> Option<String> {
        let mut links = self.links.iter();
        let (node, _) = links.find(|(_, link)| link.id == open.link)?;
        Some(node.clone())
    }

    fn answer(&mut self, open: Open, answer: &Answer) {
        let Open { purpose, sent, .. } = open;
        match purpose {
            Purpose::AcquireFree(attempt) => self.entered(attempt, sent, answer),
            Purpose::Acquire(attempt) => self.attempt_answered(attempt, sent, answer),
            Purpose::Leave(attempt) if answer.is_bare_zero() => {
                // It is no brief holder, or none any more. The long script knows.
                if let Some(debt) = self.pledges.debt(attempt) {
                    let names = debt.names.clone();
                    self.mark_contended(&names);
                    self.pay(attempt);
                }
            }
            Purpose::Leave(attempt) => {
                if let Some(debt) = self.pledges.debt(attempt) {
                    let names = debt.names.clone();
                    self.offered(&names, answer.number(2));
                }
                self.pledges.paid(attempt);
                self.settle_closing();
            }
            Purpose::Release {
                key,
                names,
                attempt,
                brief: true,
                again,
                listener,
            } if answer.number(0) == 0 => {
                // Somebody waits, or it is not ours: the long script knows.
                self.mark_contended(&names);
                let (slot, call) = (self.slot(&names), leave_call(&names, attempt, false));
                let purpose = Purpose::Release {
                    key,
                    names,
                    attempt,
                    brief: false,
                    again,
                    listener,
                };
                self.transmit(Open {
                    since: open.since,
                    ..Open::new(purpose, call, slot)
                });
            }
            Purpose::Release {
                names,
                attempt,
                again,
                listener,
                ..
            } => {
                self.pledges.end(attempt);
                self.offered(&names, answer.number(2));
                let outcome = match answer.number(0) {
                    1 => Ok(Released::Released),
                    _ if again => Err(indeterminate("the release")),
                    _ => Ok(Released::AlreadyLost),
                };
                tell(listener, outcome);
            }
            Purpose::Renew {
                gather,
                first,
                batch,
            } => {
                let outcomes = batch
                    .iter()
                    .enumerate()
                    .map(|(place, renewal)| (renewal.clone(), answer.number(place + 1) == 1));
                let outcomes = outcomes.collect::<Vec<_>>();
                let outcomes = self.renewed(sent, outcomes);
                self.gathered(gather, first, outcomes);
            }
            Purpose::Alter {
                key,
                names,
                grant,
                change,
                listener,
            } => {
                let outcome = self.altered(&key, &names, &grant, change, sent, answer);
                if let Err(Ok(unheard)) = listener.send(outcome)
                    && matches!(change, Change::Attach { .. })
                {
                    // Nobody took it over: it stays detached.
                    self.pledges.held.remove(&unheard.attempt);
                }
            }
            Purpose::AcquireMany { wanted, listener } => {
                self.many_answered(wanted, listener, sent, answer);
            }
            Purpose::Break { names, listener } => {
                let broken = usize::try_from(answer.number(0)).unwrap_or_default();
                if broken > 0 {
                    self.nudge_at(&names, Instant::now() + OFFER_LIFE + SLACK);
                }
                if let closed @ 1.. = answer.number(2) {
                    let left = closed.saturating_sub(answer.number(1));
                    let left = std::time::Duration::from_micros(left);
                    self.nudges.remove(&names.base);
                    self.nudge_at(&names, Instant::now() + left + SLACK);
                }
                let _ = listener.send(Ok(broken));
            }
            Purpose::Nudge(names) => self.offered(&names, answer.number(2)),
        }
    }

    /// Looks at a lock again that was offered to somebody while others wait: should the offer not
    /// be claimed, nobody else may look for long.
    fn offered(&mut self, names: &crate::names::Names, others_wait: u64) {
        if others_wait == 1 {
            self.nudge_at(names, Instant::now() + OFFER_LIFE + SLACK);
        }
    }

    fn entered(&mut self, attempt: OwnerToken, sent: Instant, answer: &Answer) {
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            return self.came_back(attempt);
        };
        let names = pending.names.clone();
        if answer.0.first() == Some(&Value::Nil) {
            return self.ask_by_script(attempt);
        }
        match answer.entry().filter(|_| answer.is_alone(pending.lease)) {
            Some((entry, base)) => {
                let entry = entry.to_owned();
                self.mark_stream(&names);
                self.acquired(attempt, sent, base);
                if let Some(held) = self.pledges.held.get_mut(&attempt)
                    && !held.astray
                {
                    held.brief = Some(entry);
                }
            }
            None => {
                self.mark_contended(&names);
                self.ask(attempt);
            }
        }
    }

    fn attempt_answered(&mut self, attempt: OwnerToken, sent: Instant, answer: &Answer) {
        let code = answer.number(0);
        if code == 1 {
            return self.acquired(attempt, sent, answer.number(2));
        }
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            if code == 2 {
                self.came_back(attempt);
            }
            return;
        };
        let names = pending.names.clone();
        match code {
            2 => {
                let was_there = pending.arrival.is_some();
                pending.arrival = Some(answer.number(3));
                self.mark_contended(&names);
                self.wait_in_line(&names, attempt, answer.number(1), answer.number(2));
                if was_there && answer.number(4) == 1 {
                    // The server has forgotten its queue: the others are not in it either.
                    self.ask_line(&names, attempt);
                }
            }
            3 => {
                let asked = pending.request.mode;
                self.mark_contended(&names);
                self.refuse_for(attempt, conflict(Some(asked), &answer.text(2)));
            }
            4 => self.refuse_for(attempt, crate::error::ended()),
            _ if pending.give_up.is_some() => {
                self.mark_contended(&names);
                if let Some(pending) = self.pledges.pending.remove(&attempt) {
                    tell(pending.listener, Ok(None));
                }
            }
            _ => self.due_at(Instant::now() + self.config.retry_delay, Due::Ask(attempt)),
        }
    }

    /// Answers a pending attempt that the server does not know.
    fn refuse_for(&mut self, attempt: OwnerToken, error: Error) {
        if let Some(pending) = self.pledges.pending.remove(&attempt) {
            self.leave_line(&pending.names, attempt);
            tell(pending.listener, Err(error));
        }
    }

    fn wait_in_line(
        &mut self,
        names: &crate::names::Names,
        attempt: OwnerToken,
        now: u64,
        held_until: u64,
    ) {
        let left = std::time::Duration::from_micros(held_until.saturating_sub(now));
        let ask_at = Instant::now() + left.min(SAFETY_NET) + SLACK;
        let line = self
            .lines
            .entry(names.base.clone())
            .or_insert_with(|| super::Line {
                attempts: std::collections::BTreeSet::new(),
                ask_at: Instant::from_nanos(0),
            });
        line.attempts.insert(attempt);
        if line.ask_at.has_passed() {
            line.ask_at = ask_at;
            self.due_at(ask_at, Due::Line(names.base.clone()));
        }
    }

    fn ask_line(&mut self, names: &crate::names::Names, but: OwnerToken) {
        let others = self.lines.get(&names.base).map(|line| &line.attempts);
        let others: Vec<OwnerToken> = others.into_iter().flatten().copied().collect();
        for attempt in others {
            if attempt != but {
                self.ask(attempt);
            }
        }
    }

    fn renewed(&mut self, sent: Instant, outcomes: Vec<(Renewal, bool)>) -> Vec<Renewed> {
        let mut told = Vec::with_capacity(outcomes.len());
        for (renewal, alive) in outcomes {
            if alive {
                let deadline = super::grants::deadline(sent, renewal.ttl);
                if let Some(held) = self.pledges.held.get_mut(&renewal.lease) {
                    held.brief = None;
                    if let Some(validity) = &held.grant.validity {
                        validity.extend(deadline);
                    }
                }
                told.push(Renewed::Until(deadline));
            } else {
                self.broken(renewal.lease);
                told.push(Renewed::Lost);
            }
        }
        told
    }

    /// A part of a renewal is answered; the whole is when all parts are.
    pub(super) fn gathered(&mut self, gather: u64, first: usize, outcomes: Vec<Renewed>) {
        let Some(whole) = self.gathers.get_mut(&gather) else {
            return;
        };
        for (place, outcome) in outcomes.into_iter().enumerate() {
            if let Some(slot) = whole.outcomes.get_mut(first + place) {
                *slot = Some(outcome);
            }
        }
        whole.left -= 1;
        if whole.left > 0 {
            return;
        }
        if let Some(whole) = self.gathers.remove(&gather)
            && let Some(listener) = whole.listener
        {
            let outcomes = whole.outcomes.into_iter();
            let outcomes = outcomes.map(|outcome| {
                outcome.unwrap_or_else(|| Renewed::Failed(unavailable("the renewal")))
            });
            let _ = listener.send(Ok(outcomes.collect()));
        }
    }

    /// Whether one of the attempts of a set is over for this process.
    pub(super) fn any_ended(&self, wanted: &[crate::backend::Application]) -> bool {
        let mut attempts = wanted.iter().map(|application| application.request.attempt);
        attempts.any(|attempt| self.pledges.has_ended(attempt))
    }
}

/// An answer of numbers, and now and then a word.
#[derive(Debug)]
pub(super) struct Answer(Vec<Value>);

impl Answer {
    fn of(value: Value) -> Self {
        match value {
            Value::Array(values) => Self(values),
            value => Self(vec![value]),
        }
    }

    /// 0 where there is none.
    pub(super) fn number(&self, place: usize) -> u64 {
        match self.0.get(place) {
            Some(Value::Int(number)) => u64::try_from(*number).unwrap_or_default(),
            _ => 0,
        }
    }

    /// The entry of a brief holder, and its fencing base, see `library.lua`. A millisecond has room for
    /// a thousand bases. Beyond that, which takes a clock that was set back, there is none.
    fn entry(&self) -> Option<(&str, u64)> {
        let Some(Value::BulkString(entry)) = self.0.first() else {
            return None;
        };
        let entry = std::str::from_utf8(entry).ok()?;
        let (milliseconds, place) = entry.split_once('-')?;
        let milliseconds: u64 = milliseconds.parse().ok()?;
        let place: u64 = place.parse().ok()?;
        let base = milliseconds.checked_sub(EPOCH * 1000)? * 1000;
        (place < 1000).then_some((entry, base + place))
    }

    /// Whether the entry is the only one, in a key that outlives the lease for long. The script,
    /// which answers with nothing else, has seen to that.
    fn is_alone(&self, lease: std::time::Duration) -> bool {
        let least = (lease + RESIDUE).as_millis();
        self.0.len() == 1 || (self.number(1) == 1 && u128::from(self.number(2)) >= least)
    }

    /// What is said to a brief holder when the long script is needed.
    fn is_bare_zero(&self) -> bool {
        self.0.len() == 1 && self.number(0) == 0
    }

    pub(super) fn text(&self, place: usize) -> String {
        let value = self.0.get(place).cloned().unwrap_or(Value::Nil);
        redis::from_redis_value(value).unwrap_or_default()
    }

    /// The server's clock, where the answer tells it. A fence is that, or more, and more is safe.
    fn now(&self, purpose: &Purpose) -> Option<u64> {
        let now = match purpose {
            // Cut to a millisecond.
            Purpose::AcquireFree(_) => self.entry().map_or(0, |(_, base)| base + 1000),
            Purpose::Renew { .. } => self.number(0),
            Purpose::Release { brief: true, .. } => 0,
            Purpose::Leave(_) if self.0.len() == 1 => 0,
            _ => self.number(1),
        };
        (now > 0).then_some(now)
    }
}

/// The error for a kind that the key is used in, as the scripts name it.
pub(super) fn conflict(asked: Option<Mode>, kind: &str) -> Error {
    let other = match kind.strip_prefix('p') {
        Some(of) => format!("permits of {of}"),
        None => Mode::Shared.to_string(),
    };
    let asked = asked.map_or_else(|| "a mode".to_owned(), |mode| mode.to_string());
    error(
        ErrorKind::ModeConflict,
        format!("asked for {asked} while {other} is held or waited for; use one mode per key"),
    )
}
