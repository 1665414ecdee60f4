//! What happens to messages on their way.

use std::time::Duration;

use super::wire::{ClientId, Kind};

/// On which way a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// From the client to the server.
    Request,
    /// The answer to a request; its kind is the request's.
    Reply,
    /// From the server, unasked.
    Push,
}

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives this much later, after messages that were sent behind it.
    Late(Duration),
    /// It is kept back until [`Server::let_go`](super::Server::let_go).
    Held,
    /// It arrives twice.
    Doubled,
}

/// Rules for the messages to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    client: ClientId,
    leg: Leg,
    kind: Kind,
    fate: Fate,
    /// `None`: until further notice.
    times: Option<usize>,
}

impl Faults {
    pub(super) fn add(
        &mut self,
        client: ClientId,
        leg: Leg,
        kind: Kind,
        fate: Fate,
        times: Option<usize>,
    ) {
        self.rules.push(Rule {
            client,
            leg,
            kind,
            fate,
            times,
        });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How many of the messages that rules still wait for have not come.
    pub(super) fn outstanding(&self) -> usize {
        self.rules.iter().filter_map(|rule| rule.times).sum()
    }

    /// The fate of this message, which uses up one of its rule's times.
    pub(super) fn fate(&mut self, client: ClientId, leg: Leg, kind: Kind) -> Option<Fate> {
        let at = self
            .rules
            .iter()
            .position(|rule| rule.client == client && rule.leg == leg && rule.kind == kind)?;
        let rule = &mut self.rules[at];
        let fate = rule.fate;
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                self.rules.remove(at);
            }
        }
        Some(fate)
    }
}
