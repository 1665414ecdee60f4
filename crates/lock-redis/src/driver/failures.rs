//! What becomes of a call that failed or was not answered.

use lock_core::clock::Instant;
use lock_core::{Error, Renewed};
use redis::RedisError;

use super::Driver;
use super::attempts::leave_call;
use super::calls::{Open, Purpose};
use super::grants::tell;
use super::time::Due;
use crate::error::{Remedy, indeterminate, remedy, unavailable};

impl Driver {
    /// A call was answered with an error.
    pub(super) fn failed(&mut self, open: Open, failure: &RedisError) {
        let remedy = remedy(failure);
        if let Purpose::AcquireFree(attempt) = open.purpose
            && open.call.is_transaction()
            && !matches!(remedy, Remedy::Reconnect)
        {
            // A transaction does not tell why it failed. The script will.
            return self.ask_by_script(attempt);
        }
        match remedy {
            Remedy::SendScript if self.is_wanted(&open) => {
                if let Some(node) = self.node_of(&open) {
                    self.transmit_to(&node, open, false, false);
                }
            }
            Remedy::Moved(node) => {
                self.nodes.moved(open.slot, node);
                self.ask_for_map();
                if self.is_wanted(&open) {
                    self.transmit_again(open);
                }
            }
            Remedy::Ask(node) if self.is_wanted(&open) => {
                // In full: the node may not know the script.
                self.transmit_to(&node, open, true, false);
            }
            Remedy::SendScript | Remedy::Ask(_) => {}
            Remedy::Later => self.try_later(open),
            Remedy::Reconnect => {
                let node = self.node_of(&open);
                self.unanswered(open);
                if let Some(node) = node {
                    self.give_up(&node);
                }
            }
            Remedy::Refuse(error) => self.refused(open, error),
        }
    }

    /// Whether a call must be sent again: the end of an attempt may have been told meanwhile.
    fn is_wanted(&self, open: &Open) -> bool {
        match &open.purpose {
            Purpose::Acquire(attempt) | Purpose::AcquireFree(attempt) => {
                self.pledges.pending.contains_key(attempt)
            }
            Purpose::Leave(attempt) => self.pledges.owes(*attempt),
            _ => true,
        }
    }

    /// Sends a call to where its key has moved.
    fn transmit_again(&mut self, open: Open) {
        match open.purpose {
            Purpose::Acquire(attempt) | Purpose::AcquireFree(attempt) => self.ask(attempt),
            Purpose::Leave(attempt) => self.pay(attempt),
            _ => self.transmit(open),
        }
    }

    /// The server cannot carry a call out just now.
    fn try_later(&mut self, open: Open) {
        let at = Instant::now() + self.config.retry_delay;
        match open.purpose {
            Purpose::Acquire(attempt) | Purpose::AcquireFree(attempt) => {
                self.due_at(at, Due::Ask(attempt));
            }
            Purpose::Leave(attempt) => {
                self.pledges.press(attempt, self.config.retry_delay);
                self.dun();
            }
            Purpose::Nudge(names) => self.nudge_at(&names, at),
            _ => {
                self.due_at(at, Due::Flush);
                self.due_at(open.since + self.patience(), Due::Patience);
                self.unsent.push(open);
            }
        }
    }

    /// The connection is gone before the answer came.
    pub(super) fn unanswered(&mut self, open: Open) {
        let in_time = !(open.since + self.patience()).has_passed();
        match open.purpose {
            // The attempt or the debt knows when to ask again.
            Purpose::Acquire(_) | Purpose::AcquireFree(_) | Purpose::Nudge(_) => {}
            Purpose::Leave(attempt) => {
                self.pledges.press(attempt, std::time::Duration::ZERO);
            }
            Purpose::Renew { gather, first, .. } => self.gathered(gather, first, Vec::new()),
            Purpose::Release {
                key,
                names,
                attempt,
                listener,
                ..
            } if in_time => {
                // Not as a brief holder: what cannot be done so would look like a loss.
                let (slot, call) = (self.slot(&names), leave_call(&names, attempt, false));
                let purpose = Purpose::Release {
                    key,
                    names,
                    attempt,
                    brief: false,
                    again: true,
                    listener,
                };
                self.unsent.push(Open {
                    since: open.since,
                    ..Open::new(purpose, call, slot)
                });
                self.due_at(open.since + self.patience(), Due::Patience);
            }
            // Given up meanwhile: asking again would bring it back.
            Purpose::AcquireMany { ref wanted, .. } if self.any_ended(wanted) => {}
            // The others say what is to be, so asking again does no harm.
            _ if in_time => {
                self.due_at(open.since + self.patience(), Due::Patience);
                self.unsent.push(open);
            }
            _ => self.refused(open, unavailable("the request")),
        }
    }

    /// Tells the caller that a call failed for good.
    pub(super) fn refused(&mut self, open: Open, error: Error) {
        match open.purpose {
            Purpose::Acquire(attempt) | Purpose::AcquireFree(attempt) => {
                self.refuse(attempt, error)
            }
            Purpose::Leave(attempt) => {
                tracing::warn!(%attempt, %error, "cannot cancel an attempt, trying again");
                self.pledges.press(attempt, self.config.response_timeout);
            }
            Purpose::Renew {
                gather,
                first,
                batch,
            } => {
                let failed = batch.iter().map(|_| Renewed::Failed(error.clone()));
                self.gathered(gather, first, failed.collect());
            }
            Purpose::Release {
                key,
                names,
                attempt,
                again,
                listener,
                ..
            } => {
                self.pledges.abandon(key, names, attempt);
                self.pay(attempt);
                let error = if again {
                    indeterminate("the release")
                } else {
                    error
                };
                tell(listener, Err(error));
            }
            Purpose::Alter { listener, .. } => drop(listener.send(Err(error))),
            Purpose::AcquireMany { wanted, listener } => {
                for application in wanted {
                    let attempt = application.request.attempt;
                    self.abandon(application.key, application.names, attempt);
                }
                let _ = listener.send(Err(error));
            }
            Purpose::Break { listener, .. } => drop(listener.send(Err(error))),
            Purpose::Nudge(_) => {}
        }
    }
}
