//! Connections: made, used, given up.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lock_core::clock::Instant;
use lock_core::{BoxFuture, Error, ErrorKind, OwnerToken, Result, runtime};

use super::calls::{Open, Purpose};
use super::time::Due;
use super::{Driver, Question, Reply};
use crate::connect::{self, News, Ready};
use crate::error::{error, may_pass};
use crate::server_clock::ServerClock;
use crate::topology::{self, Nodes, SlotMap};

/// Tries to reach a server that was never reached: its address is wrong more often than not.
const FIRST_TRIES: u32 = 3;

/// What tasks report to the driver.
pub(crate) enum Event {
    Connected {
        node: String,
        link: u64,
        ready: Result<Ready>,
    },
    News {
        node: String,
        link: u64,
        news: News,
    },
    Mapped(Result<SlotMap>),
    /// A question that went to a node which does not have the slot any more.
    Astray(Question),
    /// How many replicas have a grant.
    Confirmed {
        attempt: OwnerToken,
        replicas: Result<u32>,
    },
}

/// A connection to a node, or on the way to be one.
pub(super) struct Link {
    pub(super) id: u64,
    /// `None` while connecting.
    ready: Option<Ready>,
    in_flight: FuturesUnordered<BoxFuture<Reply>>,
    pub(super) clock: ServerClock,
    pub(super) heard: Instant,
    /// Until when the server is in quarantine.
    pub(super) closed_until: Option<Instant>,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.ready.is_some()
    }

    pub(super) fn connection(&self) -> Option<redis::aio::MultiplexedConnection> {
        Some(self.ready.as_ref()?.connection.clone())
    }

    /// Sends commands in the order of the calls: each future goes first when it is first polled,
    /// and they are polled in turn.
    fn send(&self, number: u64, command: redis::Cmd) {
        if let Some(mut connection) = self.connection() {
            self.in_flight.push(Box::pin(async move {
                let result = connection.send_packed_command(&command).await;
                (number, result.and_then(redis::Value::extract_error))
            }));
        }
    }

    /// The same, for a transaction. Errors of its commands are left in the answer.
    fn send_transaction(&self, number: u64, commands: redis::Pipeline) {
        if let Some(mut connection) = self.connection() {
            self.in_flight.push(Box::pin(async move {
                // MULTI and each command are answered, and then EXEC.
                let before = commands.len() + 1;
                let result = connection.send_packed_commands(&commands, before, 1).await;
                let result = result.and_then(|answers| {
                    let answer = answers.into_iter().next().unwrap_or(redis::Value::Nil);
                    match answer {
                        redis::Value::Array(_) => Ok(answer),
                        answer => answer.extract_error(),
                    }
                });
                (number, result)
            }));
        }
    }

    /// The same, for a slot that is just moving to this node.
    fn send_asking(&self, number: u64, command: redis::Cmd) {
        if let Some(mut connection) = self.connection() {
            self.in_flight.push(Box::pin(async move {
                let mut both = redis::pipe();
                both.cmd("ASKING").ignore().add_command(command);
                let result = connection.send_packed_commands(&both, 1, 1).await;
                let result = result
                    .map(|values| values.into_iter().next().unwrap_or(redis::Value::Nil))
                    .and_then(redis::Value::extract_error);
                (number, result)
            }));
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>, replies: &mut Vec<Reply>) {
        while let Poll::Ready(Some(reply)) = self.in_flight.poll_next_unpin(context) {
            replies.push(reply);
        }
    }
}

impl Driver {
    pub(super) fn heed(&mut self, event: Event) {
        match event {
            Event::Connected { node, link, ready } => {
                if self.links.get(&node).is_some_and(|known| known.id == link) {
                    match ready {
                        Ok(ready) => self.connected(&node, ready),
                        Err(error) => self.not_connected(&node, error),
                    }
                }
            }
            Event::News { node, link, news } => {
                let Some(known) = self.links.get_mut(&node).filter(|known| known.id == link) else {
                    return;
                };
                known.heard = Instant::now();
                match news {
                    News::Message(text) => self.pushed(&node, &text),
                    News::Broken => self.give_up(&node),
                }
            }
            Event::Mapped(map) => self.mapped(map),
            Event::Astray(question) => {
                // Not at once: while a slot is being moved, the map stays as it is.
                let pause = self.config.retry_delay.min(self.config.response_timeout);
                self.due_at(Instant::now() + pause, Due::Map);
                self.due_at(question.0 + self.patience(), Due::Patience);
                self.questions.push(question);
            }
            Event::Confirmed { attempt, replicas } => self.confirmed(attempt, replicas),
        }
    }

    /// The node's connection, if it is up. Starts to connect if there is none.
    pub(super) fn link_to(&mut self, node: &str) -> Option<&mut Link> {
        if !self.links.contains_key(node) {
            if !self.is_paused(node) {
                self.connect(node);
            }
            return None;
        }
        self.links.get_mut(node).filter(|link| link.is_up())
    }

    /// Whether the next try to connect is still to come.
    fn is_paused(&self, node: &str) -> bool {
        self.dues
            .values()
            .any(|due| matches!(due, Due::Connect(paused) if paused == node))
    }

    pub(super) fn connect(&mut self, node: &str) {
        self.last_link += 1;
        let id = self.last_link;
        let link = Link {
            id,
            ready: None,
            in_flight: FuturesUnordered::new(),
            clock: ServerClock::default(),
            heard: Instant::now(),
            closed_until: None,
        };
        self.links.insert(node.to_owned(), link);
        let (config, reporter) = (Arc::clone(&self.config), self.reporter.clone());
        let (node, channel) = (node.to_owned(), self.channel.clone());
        runtime::handle().spawn(async move {
            let (ears, eared) = (reporter.clone(), node.clone());
            let ear: connect::Ear = Arc::new(move |news| {
                // A driver that is gone hears nothing.
                let _ = ears.send(Event::News {
                    node: eared.clone(),
                    link: id,
                    news,
                });
            });
            let ready = match Nodes::locate(&config, &node).await {
                Ok(target) => connect::connect(&config, target, &channel, ear).await,
                Err(error) => Err(error),
            };
            let _ = reporter.send(Event::Connected {
                node,
                link: id,
                ready,
            });
        });
    }

    /// Everything that may have been missed is asked for again.
    fn connected(&mut self, node: &str, ready: Ready) {
        self.failures.remove(node);
        let is_first = self.known.insert(node.to_owned());
        let closed_until = match (self.config.quarantine, ready.uptime) {
            (Some(quarantine), Some(uptime)) if uptime < quarantine => {
                Some(Instant::now() + (quarantine - uptime))
            }
            _ => None,
        };
        if let Some(link) = self.links.get_mut(node) {
            link.ready = Some(ready);
            link.heard = Instant::now();
            link.closed_until = closed_until;
        }
        if let Some(until) = closed_until {
            self.due_at(until, Due::Opened(node.to_owned()));
        }
        if !is_first {
            tracing::debug!(node, "connected again");
        }
        self.ask_all(node);
        self.press_debts(node);
        self.revalidate(node);
        self.flush();
        self.answer_questions();
    }

    fn not_connected(&mut self, node: &str, error: Error) {
        self.links.remove(node);
        let failures = self.failures.entry(node.to_owned()).or_default();
        *failures += 1;
        let tries = if self.known.contains(node) {
            self.config.retry_times
        } else {
            FIRST_TRIES.min(self.config.retry_times)
        };
        tracing::debug!(node, %error, "cannot connect");
        if !may_pass(&error) || *failures > tries {
            *failures = 0;
            self.refuse_all(node, &error);
        }
        if self.nodes.is_cluster() {
            self.ask_for_map();
        }
        self.reconnect_if_needed(node);
    }

    /// Gives a connection up. What was sent over it is in doubt.
    pub(super) fn give_up(&mut self, node: &str) {
        let Some(link) = self.links.remove(node) else {
            return;
        };
        tracing::debug!(node, "connection lost");
        let numbers: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, open)| open.link == link.id)
            .map(|(number, _)| *number)
            .collect();
        drop(link);
        for number in numbers {
            if let Some(open) = self.calls.remove(&number) {
                self.unanswered(*open);
            }
        }
        if self.nodes.is_cluster() {
            self.ask_for_map();
        }
        self.reconnect_if_needed(node);
    }

    fn reconnect_if_needed(&mut self, node: &str) {
        let idle = self.pledges.is_idle() && self.unsent.is_empty() && self.questions.is_empty();
        if !idle && !self.is_paused(node) {
            // At once after a loss; later when that did not help.
            let failed = self.failures.get(node).copied().unwrap_or_default();
            let pause = if failed == 0 && self.known.contains(node) {
                Duration::from_millis(5)
            } else {
                self.config.retry_delay
            };
            self.due_at(Instant::now() + pause, Due::Connect(node.to_owned()));
        }
    }

    /// Asks the cluster who has which slot.
    pub(super) fn ask_for_map(&mut self) {
        if std::mem::replace(&mut self.mapping, true) {
            return;
        }
        let (config, reporter) = (Arc::clone(&self.config), self.reporter.clone());
        runtime::handle().spawn(async move {
            let map = topology::slots(&config).await;
            let _ = reporter.send(Event::Mapped(map));
        });
    }

    fn mapped(&mut self, map: Result<SlotMap>) {
        match map {
            Ok(map) => {
                self.mapping = false;
                self.failures.remove("the cluster");
                self.known.insert("the cluster".to_owned());
                self.nodes.learn(map);
                let nodes = self.nodes.all();
                let gone: Vec<String> = self
                    .links
                    .keys()
                    .filter(|node| !nodes.contains(node))
                    .cloned()
                    .collect();
                for node in gone {
                    self.give_up(&node);
                }
                for node in nodes {
                    self.ask_all(&node);
                    self.press_debts(&node);
                }
                self.flush();
                self.answer_questions();
            }
            Err(error) => {
                let failures = self.failures.entry("the cluster".to_owned()).or_default();
                *failures += 1;
                let tries = if self.known.contains("the cluster") {
                    self.config.retry_times
                } else {
                    FIRST_TRIES.min(self.config.retry_times)
                };
                if !may_pass(&error) || *failures > tries {
                    *failures = 0;
                    self.mapping = false;
                    self.refuse_homeless(&error);
                } else {
                    self.due_at(Instant::now() + self.config.retry_delay, Due::Map);
                }
            }
        }
    }

    /// Sends a call, or keeps it until there is a connection.
    pub(super) fn transmit(&mut self, open: Open) {
        let Some(node) = self.nodes.of(open.slot) else {
            self.ask_for_map();
            self.keep_unsent(open);
            return;
        };
        self.transmit_to(&node, open, false, true);
    }

    /// Sends a call to a node, with the whole script if it does not know it.
    pub(super) fn transmit_to(&mut self, node: &str, mut open: Open, asking: bool, digest: bool) {
        let number = self.last_call + 1;
        let Some(link) = self.link_to(node) else {
            self.keep_unsent(open);
            return;
        };
        open.link = link.id;
        open.sent = Instant::now();
        let command = open.call.command(digest);
        if asking {
            link.send_asking(number, command);
        } else {
            match open.call.transaction(command) {
                Ok(commands) => link.send_transaction(number, commands),
                Err(command) => link.send(number, command),
            }
        }
        self.last_call = number;
        self.calls.insert(number, Box::new(open));
    }

    fn keep_unsent(&mut self, open: Open) {
        match open.purpose {
            // They know themselves when to go.
            Purpose::Acquire(_)
            | Purpose::AcquireFree(_)
            | Purpose::Leave(_)
            | Purpose::Nudge(_) => {}
            _ => {
                self.due_at(open.since + self.patience(), Due::Patience);
                self.unsent.push(open);
            }
        }
    }

    /// Sends what waited for a connection.
    pub(super) fn flush(&mut self) {
        for open in std::mem::take(&mut self.unsent) {
            self.transmit(open);
        }
    }

    /// Whether a node's server is in quarantine, and for how long.
    pub(super) fn quarantine_of(&self, node: &str) -> Option<Duration> {
        let until = self.links.get(node)?.closed_until?;
        (!until.has_passed()).then(|| until.remaining())
    }
}

/// What those hear who must not wait for the end of a quarantine.
pub(super) fn in_quarantine(left: Duration) -> Error {
    error(
        ErrorKind::Unavailable,
        format!("the server has just started and grants nothing for another {left:?}"),
    )
}
