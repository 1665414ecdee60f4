//! What is due: asking again, giving up, reconnecting.

use lock_core::clock::Instant;
use lock_core::{Error, ErrorKind, OwnerToken, Renewal};

use super::{Driver, Link};
use crate::network::backend::NAME;
use crate::network::calls::{Call, Purpose, indeterminate, unavailable};
use crate::network::plant::Plant;

impl Driver {
    pub(super) fn look_at_time(&mut self) {
        self.check_link();
        for call in self.calls.overdue() {
            self.unanswered(call);
        }
        let pending = self.pledges.pending.iter();
        let (mut ask, mut give_up) = (Vec::new(), Vec::new());
        for (attempt, pending) in pending {
            if pending.give_up.is_some_and(Instant::has_passed) {
                give_up.push((pending.key.clone(), *attempt));
            } else if pending.ask_at.has_passed() {
                ask.push(*attempt);
            }
        }
        for attempt in ask {
            self.ask_pending(attempt);
        }
        for (key, attempt) in give_up {
            self.refuse(key, attempt, unavailable("the acquire"));
        }
        self.pay_debts();
        self.settle_closing();
    }

    /// Gives a connection up that stays silent while something is asked.
    fn check_link(&mut self) {
        let silence = self.config.request_timeout * 3;
        let silent = match &self.link {
            Link::Down => false,
            Link::Greeting(_, until) => until.has_passed(),
            Link::Up(_) => self
                .calls
                .oldest_sent()
                .is_some_and(|sent| (sent.max(self.heard) + silence).has_passed()),
        };
        if silent {
            self.disconnect();
        }
    }

    /// The connection is gone. What was sent over it is in doubt.
    pub(super) fn disconnect(&mut self) {
        self.link = Link::Down;
        self.heard = Instant::now();
        for call in self.calls.drain() {
            self.unanswered(call);
        }
    }

    fn unanswered(&mut self, call: Call) {
        let in_time = !(call.since + self.config.patience).has_passed();
        let sent = call.sent.is_some();
        match call.purpose {
            // The attempt or the debt knows when to ask again.
            Purpose::Attempt(..) | Purpose::Cancel(_) => {}
            Purpose::Renew { listener, .. } => {
                if let Some(listener) = listener {
                    let _ = listener.send(Err(unavailable("the renewal")));
                }
            }
            Purpose::Release {
                key,
                attempt,
                again,
                listener,
            } if in_time => {
                let again = again || sent;
                let purpose = Purpose::Release {
                    key,
                    attempt,
                    again,
                    listener,
                };
                self.call_since(call.since, purpose);
            }
            Purpose::Release {
                key,
                attempt,
                again,
                listener,
            } => {
                self.pledges.abandon(key, attempt);
                let error = if sent || again {
                    indeterminate("the release")
                } else {
                    unavailable("the release")
                };
                let _ = listener.send(Err(error));
            }
            // Given up meanwhile: asking again would bring it back.
            Purpose::AcquireMany { wanted, .. } if self.any_ended(&wanted) => {}
            // The others say what is to be, so asking again does no harm.
            purpose if in_time => self.call_since(call.since, purpose),
            Purpose::Alter { listener, .. } => {
                let _ = listener.send(Err(unavailable("the change")));
            }
            Purpose::AcquireMany { wanted, listener } => {
                if sent {
                    for (key, request) in wanted {
                        self.pledges.abandon(key, request.attempt);
                    }
                }
                let _ = listener.send(Err(unavailable("the acquire")));
            }
            Purpose::Inspect { listener, .. } => {
                let _ = listener.send(Err(unavailable("the question")));
            }
            Purpose::Break { listener, .. } => {
                let _ = listener.send(Err(unavailable("the order to break")));
            }
        }
    }

    /// Looks whether the leases are still there, which the server may have forgotten.
    pub(super) fn revalidate_holders(&mut self) {
        if self.server.has(Plant::HoldersNotRevalidated) {
            return;
        }
        let batch: Vec<Renewal> = self
            .pledges
            .held
            .iter()
            .filter_map(|(attempt, held)| renewal(*attempt, held))
            .collect();
        if !batch.is_empty() {
            self.call(Purpose::Renew {
                batch,
                listener: None,
            });
        }
    }

    pub(super) fn settle_closing(&mut self) {
        let paid = !self.pledges.has_debts();
        for (until, listener) in std::mem::take(&mut self.closing) {
            if paid {
                let _ = listener.send(Ok(()));
            } else if until.has_passed() {
                let error = Error::new(
                    ErrorKind::Indeterminate,
                    "some abandoned attempts are not confirmed; they end with their leases",
                );
                let _ = listener.send(Err(error.with_backend(NAME)));
            } else {
                self.closing.push((until, listener));
            }
        }
    }
}

fn renewal(attempt: OwnerToken, held: &crate::network::pledges::Held) -> Option<Renewal> {
    let terms = held.grant.validity.as_ref()?.lease()?;
    Some(Renewal {
        key: held.key.clone(),
        lease: attempt,
        ttl: terms.ttl,
    })
}
