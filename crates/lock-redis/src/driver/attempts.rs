//! Attempts: asked for, given up.

use lock_core::clock::Instant;
use lock_core::{Error, Grant, LockKey, Mode, OwnerToken, Released, Renewal, Wait};

use super::Driver;
use super::calls::{Gather, Open, Purpose};
use super::links::in_quarantine;
use super::time::Due;
use crate::backend::{Application, Listener};
use crate::error::{NAME, ended, unavailable};
use crate::names::Names;
use crate::pledges::Pending;
use crate::script::{Call, Script};

/// Leases renewed by one script: more would keep the server from others.
const RENEWED_AT_ONCE: usize = 100;
/// Locks remembered as contended; beyond that the outdated ones are forgotten.
const CONTENDED_MOST: usize = 4096;
/// Locks remembered for their stream.
const STREAMS_MOST: usize = 4096;

impl Driver {
    pub(super) fn acquire(&mut self, application: Application, listener: Listener<Option<Grant>>) {
        let attempt = application.request.attempt;
        if let Some(held) = self.pledges.held.get(&attempt) {
            let _ = listener.send(Ok(Some(held.grant.clone())));
            return;
        }
        if let Some(pending) = self.pledges.pending.get_mut(&attempt) {
            pending.listener = listener;
            return;
        }
        if self.closed {
            let _ = listener.send(Err(Error::closed(NAME)));
            return;
        }
        if self.pledges.has_ended(attempt) {
            let _ = listener.send(Err(ended()));
            return;
        }
        let must_not_wait = application.request.wait == Wait::Now;
        let give_up = must_not_wait.then(|| Instant::now() + self.patience());
        if let Some(at) = give_up {
            self.due_at(at, Due::GiveUp(attempt));
        }
        let pending = Pending {
            key: application.key,
            names: application.names,
            request: application.request,
            line: application.line,
            lease: application.lease,
            listener,
            sent_over: None,
            astray: false,
            arrival: None,
            give_up,
            unconfirmed: None,
        };
        self.pledges.pending.insert(attempt, pending);
        self.ask(attempt);
    }

    /// Sends the acquire of a pending attempt, for the first time or again.
    pub(super) fn ask(&mut self, attempt: OwnerToken) {
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            return;
        };
        let slot = self.slot(&pending.names);
        let (was_sent, must_not_wait) = (pending.sent_over.is_some(), pending.give_up.is_some());
        let Some(node) = self.nodes.of(slot) else {
            self.ask_for_map();
            return;
        };
        if self.link_to(&node).is_none() {
            return;
        }
        if let Some(left) = self.quarantine_of(&node)
            && !was_sent
        {
            if must_not_wait {
                self.refuse(attempt, in_quarantine(left));
            }
            return;
        }
        let link = self.links.get(&node).map_or(0, |link| link.id);
        let Some(pending) = self.pledges.pending.get_mut(&attempt) else {
            return;
        };
        let is_free = pending.request.mode == Mode::Exclusive
            && !was_sent
            && !is_contended(&self.lines, &self.contended, &pending.names);
        if pending.sent_over.is_some_and(|earlier| earlier != link) {
            pending.astray = true;
        }
        pending.sent_over = Some(link);
        let open = if is_free {
            let call = if self.streams.contains(&pending.names.base) {
                Call::enter(&pending.names, &pending.line)
            } else {
                enter_by_script(pending)
            };
            Open::new(Purpose::AcquireFree(attempt), call, slot)
        } else {
            let patience = match (pending.request.wait, pending.arrival) {
                (Wait::Now, _) => "try",
                (_, None) => "wait",
                (_, Some(_)) => "again",
            };
            let call = Call::on(Script::acquire(), &pending.names)
                .arg(pending.line.as_str())
                .arg(patience)
                .arg(pending.arrival.unwrap_or_default().to_string());
            Open::new(Purpose::Acquire(attempt), call, slot)
        };
        self.transmit(open);
    }

    /// Asks by the short script for what was asked in vain without one.
    pub(super) fn ask_by_script(&mut self, attempt: OwnerToken) {
        if let Some(pending) = self.pledges.pending.get(&attempt) {
            self.streams.remove(&pending.names.base);
            let (call, slot) = (enter_by_script(pending), self.slot(&pending.names));
            self.transmit(Open::new(Purpose::AcquireFree(attempt), call, slot));
        }
    }

    /// Remembers that the short scripts would be sent in vain.
    pub(super) fn mark_contended(&mut self, names: &Names) {
        if self.contended.len() >= CONTENDED_MOST {
            self.contended.retain(|_, until| !until.has_passed());
        }
        let until = Instant::now() + std::time::Duration::from_secs(1);
        self.contended.insert(names.base.clone(), until);
    }

    /// Remembers that a lock has a stream.
    pub(super) fn mark_stream(&mut self, names: &Names) {
        if !self.streams.contains(&names.base) {
            if self.streams.len() >= STREAMS_MOST {
                self.streams.clear();
            }
            self.streams.insert(names.base.clone());
        }
    }

    /// Asks for everything that is pending at a node.
    pub(super) fn ask_all(&mut self, node: &str) {
        let Some(link) = self.links.get(node).map(|link| link.id) else {
            // It connects if somebody needs it.
            let needed =
                self.pledges.pending.values().any(|pending| {
                    self.nodes.of(self.slot(&pending.names)).as_deref() == Some(node)
                });
            if needed {
                self.link_to(node);
            }
            return;
        };
        let pending: Vec<(u64, OwnerToken)> = self
            .pledges
            .pending
            .iter()
            .filter(|(_, pending)| pending.sent_over != Some(link))
            .filter(|(_, pending)| {
                self.nodes.of(self.slot(&pending.names)).as_deref() == Some(node)
            })
            .map(|(attempt, pending)| (pending.arrival.unwrap_or(u64::MAX), *attempt))
            .collect();
        let mut pending = pending;
        // Those first who were first.
        pending.sort_unstable();
        for (_, attempt) in pending {
            self.ask(attempt);
        }
    }

    pub(super) fn abandon(&mut self, key: LockKey, names: Names, attempt: OwnerToken) {
        self.leave_line(&names, attempt);
        self.pledges.abandon(key, names, attempt);
        self.pay(attempt);
    }

    /// Answers a pending attempt with an error and ends it.
    pub(super) fn refuse(&mut self, attempt: OwnerToken, error: Error) {
        let Some(pending) = self.pledges.pending.get(&attempt) else {
            return;
        };
        let (key, names) = (pending.key.clone(), pending.names.clone());
        self.leave_line(&names, attempt);
        if let Some(pending) = self.pledges.abandon(key, names, attempt) {
            super::grants::tell(pending.listener, Err(error));
        }
        self.pay(attempt);
    }

    /// Sends the cancel of one debt.
    pub(super) fn pay(&mut self, attempt: OwnerToken) {
        let Some(debt) = self.pledges.debt(attempt) else {
            return;
        };
        let slot = self.slot(&debt.names);
        let Some(node) = self.nodes.of(slot) else {
            self.ask_for_map();
            return;
        };
        let Some(link) = self.link_to(&node).map(|link| link.id) else {
            return;
        };
        let pause = self.config.response_timeout;
        self.pledges.press(attempt, pause);
        let (lines, contended) = (&self.lines, &self.contended);
        let Some(debt) = self.pledges.debt_mut(attempt) else {
            return;
        };
        let brief = debt.take_brief();
        let brief = brief.filter(|_| !is_contended(lines, contended, &debt.names));
        let call = if let Some(entry) = brief {
            Call::leave_brief(&debt.names, entry)
        } else {
            let late = if debt.may_be_late(link) { "late" } else { "" };
            Call::on(Script::leave(), &debt.names)
                .arg(attempt.to_string())
                .arg(debt.line.as_str())
                .arg(late)
        };
        self.dun();
        self.transmit(Open::new(Purpose::Leave(attempt), call, slot));
    }

    /// Sees to it that the debts are looked at again.
    pub(super) fn dun(&mut self) {
        if self.pledges.has_debts() && !std::mem::replace(&mut self.dunning, true) {
            self.due_at(Instant::now() + self.config.response_timeout, Due::Debts);
        }
    }

    pub(super) fn press_debts(&mut self, node: &str) {
        let owed: Vec<OwnerToken> = self.pledges.debts().map(|(_, attempt)| attempt).collect();
        for attempt in owed {
            let there = self
                .pledges
                .debt(attempt)
                .is_some_and(|debt| self.nodes.of(self.slot(&debt.names)).as_deref() == Some(node));
            if there {
                self.pay(attempt);
            }
        }
    }

    pub(super) fn release(
        &mut self,
        key: LockKey,
        names: Names,
        attempt: OwnerToken,
        listener: Listener<Released>,
    ) {
        let held = self.pledges.held.remove(&attempt);
        let astray = held.as_ref().is_some_and(|held| held.astray);
        let entry = held
            .and_then(|held| held.brief)
            .filter(|_| !is_contended(&self.lines, &self.contended, &names));
        let brief = entry.is_some();
        let slot = self.slot(&names);
        let call = match entry {
            Some(entry) => Call::leave_brief(&names, entry),
            None => leave_call(&names, attempt, astray),
        };
        let purpose = Purpose::Release {
            key,
            names,
            attempt,
            brief,
            again: false,
            listener,
        };
        self.transmit(Open::new(purpose, call, slot));
    }

    /// Renews leases: by node and in portions, with one answer.
    pub(super) fn renew(
        &mut self,
        batch: Vec<Renewal>,
        listener: Option<Listener<Vec<lock_core::Renewed>>>,
    ) {
        if batch.is_empty() {
            if let Some(listener) = listener {
                let _ = listener.send(Ok(Vec::new()));
            }
            return;
        }
        let mut portions: Vec<(u16, usize, Vec<Renewal>)> = Vec::new();
        for (place, renewal) in batch.iter().enumerate() {
            let names = Names::new(&self.config.prefix, &renewal.key);
            let slot = self.slot(&names);
            match portions.last_mut() {
                Some((last, _, portion)) if *last == slot && portion.len() < RENEWED_AT_ONCE => {
                    portion.push(renewal.clone());
                }
                _ => portions.push((slot, place, vec![renewal.clone()])),
            }
        }
        self.last_call += 1;
        let gather = self.last_call;
        self.gathers.insert(
            gather,
            Gather {
                left: portions.len(),
                outcomes: batch.iter().map(|_| None).collect(),
                listener,
            },
        );
        for (slot, first, batch) in portions {
            let mut keys = Vec::with_capacity(batch.len() * 2);
            for renewal in &batch {
                keys.extend(Names::new(&self.config.prefix, &renewal.key).hash_and_sharers());
            }
            let mut call = Call::new(Script::renew(), keys);
            for renewal in &batch {
                call = call
                    .arg(renewal.lease.to_string())
                    .arg(renewal.ttl.as_millis().to_string());
            }
            let purpose = Purpose::Renew {
                gather,
                first,
                batch,
            };
            self.transmit(Open::new(purpose, call, slot));
        }
    }

    /// Looks whether the leases are still there, which the server may have forgotten.
    pub(super) fn revalidate(&mut self, node: &str) {
        let held = self
            .pledges
            .held
            .iter()
            .filter(|(_, held)| self.nodes.of(self.slot(&held.names)).as_deref() == Some(node));
        let batch = held
            .filter_map(|(attempt, held)| super::grants::renewal(*attempt, held))
            .collect();
        self.renew(batch, None);
    }

    pub(super) fn acquire_many(
        &mut self,
        wanted: Vec<Application>,
        listener: Listener<Option<Vec<Grant>>>,
    ) {
        if self.closed {
            let _ = listener.send(Err(Error::closed(NAME)));
            return;
        }
        let mut seen = std::collections::HashSet::new();
        if !wanted
            .iter()
            .all(|application| seen.insert(&application.names))
        {
            // One key twice is held by the first when the second is asked for.
            let _ = listener.send(Ok(None));
            return;
        }
        let keys = wanted
            .iter()
            .flat_map(|application| application.names.all());
        let mut call = Call::new(Script::acquire_many(), keys.collect());
        for application in &wanted {
            call = call.arg(application.line.as_str());
        }
        let slot = wanted.first().map_or(0, |first| self.slot(&first.names));
        self.transmit(Open::new(
            Purpose::AcquireMany { wanted, listener },
            call,
            slot,
        ));
    }

    pub(super) fn take_away(
        &mut self,
        names: Names,
        attempt: Option<OwnerToken>,
        listener: Listener<usize>,
    ) {
        let call = Call::on(Script::take_away(), &names)
            .arg(attempt.map_or_else(String::new, |attempt| attempt.to_string()));
        let slot = self.slot(&names);
        self.transmit(Open::new(Purpose::Break { names, listener }, call, slot));
    }

    /// Looks at a lock whose offer may have ended unclaimed.
    pub(super) fn nudge(&mut self, base: String) {
        self.nudges.remove(&base);
        let names = Names { base };
        let call = Call::on(Script::leave(), &names).arg("-").arg("").arg("");
        let slot = self.slot(&names);
        self.transmit(Open::new(Purpose::Nudge(names), call, slot));
    }

    pub(super) fn nudge_at(&mut self, names: &Names, at: Instant) {
        if self.nudges.insert(names.base.clone()) {
            self.due_at(at, Due::Nudge(names.base.clone()));
        }
    }

    pub(super) fn close(&mut self, listener: Listener<()>) {
        self.closed = true;
        let pending: Vec<OwnerToken> = self.pledges.pending.keys().copied().collect();
        for attempt in pending {
            self.refuse(attempt, Error::closed(NAME));
        }
        let until = Instant::now() + self.patience();
        self.closing.push((until, listener));
        self.due_at(until, Due::Patience);
        self.settle_closing();
    }

    /// An attempt waits no longer.
    pub(super) fn leave_line(&mut self, names: &Names, attempt: OwnerToken) {
        if let Some(line) = self.lines.get_mut(&names.base) {
            line.attempts.remove(&attempt);
            if line.attempts.is_empty() {
                self.lines.remove(&names.base);
            }
        }
    }

    /// Fails what was to be sent to a node that cannot be reached.
    pub(super) fn refuse_all(&mut self, node: &str, error: &Error) {
        let there =
            |slot: u16, nodes: &crate::topology::Nodes| nodes.of(slot).as_deref() == Some(node);
        let pending = self.pledges.pending.iter();
        let pending: Vec<OwnerToken> = pending
            .filter(|(_, pending)| there(self.slot(&pending.names), &self.nodes))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in pending {
            self.refuse(attempt, error.clone());
        }
        let unsent = std::mem::take(&mut self.unsent);
        for open in unsent {
            if there(open.slot, &self.nodes) {
                self.refused(open, error.clone());
            } else {
                self.unsent.push(open);
            }
        }
        for (_, _, listener) in std::mem::take(&mut self.questions) {
            let _ = listener.send(Err(error.clone()));
        }
    }

    /// Fails everything: the cluster does not tell where to send it.
    pub(super) fn refuse_homeless(&mut self, error: &Error) {
        let pending: Vec<OwnerToken> = self.pledges.pending.keys().copied().collect();
        for attempt in pending {
            self.refuse(attempt, error.clone());
        }
        for open in std::mem::take(&mut self.unsent) {
            self.refused(open, error.clone());
        }
        for (_, _, listener) in std::mem::take(&mut self.questions) {
            let _ = listener.send(Err(error.clone()));
        }
    }

    /// Gives an acquire up that must not wait.
    pub(super) fn give_up_waiting(&mut self, attempt: OwnerToken) {
        let due = self.pledges.pending.get(&attempt);
        if due.is_some_and(|pending| pending.give_up.is_some_and(Instant::has_passed)) {
            self.refuse(attempt, unavailable("the acquire"));
        }
    }
}

fn enter_by_script(pending: &Pending) -> Call {
    Call::new(Script::acquire_free(), vec![pending.names.base.clone()])
        .arg(pending.line.as_str())
        .arg(pending.lease.as_millis().to_string())
}

pub(super) fn leave_call(names: &Names, attempt: OwnerToken, late: bool) -> Call {
    Call::on(Script::leave(), names)
        .arg(attempt.to_string())
        .arg("")
        .arg(if late { "late" } else { "" })
}

fn is_contended(
    lines: &std::collections::HashMap<String, super::Line>,
    contended: &std::collections::HashMap<String, Instant>,
    names: &Names,
) -> bool {
    lines.contains_key(&names.base)
        || contended
            .get(&names.base)
            .is_some_and(|until| !until.has_passed())
}
