//! What is due: asking again, claiming, giving up, reconnecting.

use std::future::Future as _;
use std::task::Context;
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{ErrorKind, InspectQuery, OwnerToken, Renewal, Select};

use super::calls::Open;
use super::{Driver, Event};
use crate::error::{error, unavailable};
use crate::inspect;
use crate::names::Names;

/// How long the server keeps an offer, as `library.lua` has it.
pub(super) const OFFER_LIFE: Duration = Duration::from_secs(2);
/// After the server's time is over, so that it has passed there, too.
pub(super) const SLACK: Duration = Duration::from_millis(30);

/// Something to do at a time. What is out of date by then is not done.
#[derive(Debug)]
pub(super) enum Due {
    /// One of the waiters of a lock asks again, in case a push was lost.
    Line(String),
    /// An attempt asks again.
    Ask(OwnerToken),
    /// An offer that is still held becomes a lease.
    Claim(OwnerToken),
    /// An offer may have ended unclaimed.
    Nudge(String),
    /// One that must not wait has waited long enough.
    GiveUp(OwnerToken),
    Debts,
    Connect(String),
    /// Ask the cluster for its slots again.
    Map,
    Flush,
    /// A quarantine is over.
    Opened(String),
    /// Somebody may have waited long enough for an answer.
    Patience,
}

impl Driver {
    pub(super) fn due_at(&mut self, at: Instant, due: Due) {
        self.last_due += 1;
        self.dues.insert((at, self.last_due), due);
    }

    /// Whether the alarm rings; sets it to what is due next.
    pub(super) fn is_time(&mut self, context: &mut Context<'_>) -> bool {
        let first_due = self.dues.keys().next().map(|(at, _)| *at);
        let first_call = self.calls.values().next();
        let first_call = first_call.map(|open| self.overdue_at(open));
        let Some(next) = [first_due, first_call].into_iter().flatten().min() else {
            self.alarm = None;
            return false;
        };
        if next.has_passed() {
            self.alarm = None;
            return true;
        }
        // An alarm that rings too early does no harm, and setting one costs more than a call.
        if self.alarm.as_ref().is_none_or(|(at, _)| next < *at) {
            let sleep = tokio::time::sleep(next.remaining() + Duration::from_millis(1));
            self.alarm = Some((next, Box::pin(sleep)));
        }
        let rings = match &mut self.alarm {
            Some((_, sleep)) => sleep.as_mut().poll(context).is_ready(),
            None => false,
        };
        if rings {
            self.alarm = None;
        }
        rings
    }

    pub(super) fn look_at_time(&mut self) {
        self.check_links();
        let mut claims = Vec::new();
        while let Some(entry) = self.dues.first_entry() {
            if !entry.key().0.has_passed() {
                break;
            }
            match entry.remove() {
                Due::Claim(attempt) => claims.push(attempt),
                due => self.do_now(due),
            }
        }
        self.claim(claims);
    }

    fn do_now(&mut self, due: Due) {
        match due {
            Due::Line(base) => {
                let line = self.lines.get(&base);
                if let Some(line) = line.filter(|line| line.ask_at.has_passed())
                    && let Some(first) = line.attempts.first().copied()
                {
                    // Again after a while, should the answer not come to set another time.
                    let again = Instant::now() + self.config.response_timeout * 2;
                    if let Some(line) = self.lines.get_mut(&base) {
                        line.ask_at = again;
                    }
                    self.due_at(again, Due::Line(base));
                    self.ask(first);
                }
            }
            Due::Ask(attempt) => self.ask(attempt),
            Due::Claim(attempt) => self.claim(vec![attempt]),
            Due::Nudge(base) => self.nudge(base),
            Due::GiveUp(attempt) => self.give_up_waiting(attempt),
            Due::Debts => {
                self.dunning = false;
                for attempt in self.pledges.debts_due(self.config.response_timeout) {
                    self.pay(attempt);
                }
                self.dun();
            }
            Due::Connect(node) => {
                if !self.links.contains_key(&node) {
                    self.connect(&node);
                }
            }
            Due::Map => {
                self.mapping = false;
                self.ask_for_map();
            }
            Due::Flush => self.flush(),
            Due::Opened(node) => {
                let pending: Vec<OwnerToken> = self.pledges.pending.keys().copied().collect();
                tracing::debug!(node, "the quarantine is over");
                for attempt in pending {
                    self.ask(attempt);
                }
            }
            Due::Patience => self.lose_patience(),
        }
    }

    /// Makes leases of offers that are held still.
    fn claim(&mut self, claims: Vec<OwnerToken>) {
        let batch: Vec<Renewal> = claims
            .into_iter()
            .filter_map(|attempt| {
                let held = self.pledges.held.get(&attempt)?;
                super::grants::renewal(attempt, held)
            })
            .collect();
        self.renew(batch, None);
    }

    /// When a call counts as unanswered: a connection that is heard of answers in turn.
    fn overdue_at(&self, open: &Open) -> Instant {
        let mut links = self.links.values();
        let link = links.find(|link| link.id == open.link);
        let heard = link.map_or(open.sent, |link| link.heard);
        open.sent.max(heard) + self.config.response_timeout
    }

    /// Gives a connection up that stays silent while something is asked.
    fn check_links(&mut self) {
        while let Some(open) = self.calls.values().next() {
            if !self.overdue_at(open).has_passed() {
                return;
            }
            let mut links = self.links.iter();
            let node = links.find(|(_, link)| link.id == open.link);
            match node.map(|(node, _)| node.clone()) {
                Some(node) => self.give_up(&node),
                None => {
                    if let Some((_, open)) = self.calls.pop_first() {
                        self.unanswered(*open);
                    }
                }
            }
        }
    }

    fn lose_patience(&mut self) {
        let patience = self.patience();
        for open in std::mem::take(&mut self.unsent) {
            if (open.since + patience).has_passed() {
                self.refused(open, unavailable("the request"));
            } else {
                self.unsent.push(open);
            }
        }
        for (since, query, listener) in std::mem::take(&mut self.questions) {
            if (since + patience).has_passed() {
                let _ = listener.send(Err(unavailable("the question")));
            } else {
                self.questions.push((since, query, listener));
            }
        }
        self.settle_closing();
    }

    pub(super) fn settle_closing(&mut self) {
        let paid = !self.pledges.has_debts();
        for (until, listener) in std::mem::take(&mut self.closing) {
            if paid {
                let _ = listener.send(Ok(()));
            } else if until.has_passed() {
                let message =
                    "some abandoned attempts are not confirmed; they end with their leases";
                let _ = listener.send(Err(error(ErrorKind::Indeterminate, message)));
            } else {
                self.closing.push((until, listener));
            }
        }
    }

    /// Answers the questions whose nodes are connected, in tasks of their own.
    pub(super) fn answer_questions(&mut self) {
        for (since, query, listener) in std::mem::take(&mut self.questions) {
            let nodes = self.nodes_of(&query);
            let mut connections = Vec::new();
            for node in &nodes {
                let link = self.link_to(node);
                connections.extend(link.and_then(|link| link.connection()));
            }
            if nodes.is_empty() || connections.len() < nodes.len() {
                self.questions.push((since, query, listener));
                continue;
            }
            let debts = self.pledges.debts();
            let debts = debts.map(|(key, attempt)| (key.clone(), attempt)).collect();
            let prefix = self.config.prefix.clone();
            let (limit, reporter) = (self.patience(), self.reporter.clone());
            tokio::spawn(async move {
                let work = inspect::report(connections, prefix, query.clone(), debts);
                let outcome = tokio::time::timeout(limit, work).await;
                let outcome = outcome.unwrap_or_else(|_| Err(unavailable("the question")));
                match outcome.transpose() {
                    Some(outcome) => drop(listener.send(outcome)),
                    None => drop(reporter.send(Event::Astray((since, query, listener)))),
                }
            });
        }
    }

    fn nodes_of(&mut self, query: &InspectQuery) -> Vec<String> {
        let nodes = match &query.select {
            Select::Key(key) => {
                let names = Names::new(&self.config.prefix, key);
                self.nodes.of(self.slot(&names)).into_iter().collect()
            }
            Select::Namespace(_) => self.nodes.all(),
        };
        if nodes.is_empty() {
            self.ask_for_map();
        }
        nodes
    }
}
