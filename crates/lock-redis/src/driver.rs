//! The driver: one task on the lock I/O thread that owns the connections and the attempts.

mod answers;
mod attempts;
mod calls;
mod failures;
mod grants;
mod links;
mod time;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{InspectQuery, KeyReport, OwnerToken};
use redis::{RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::backend::{Command, Listener};
use crate::config::RedisConfig;
use crate::pledges::{DebtCount, Pledges};
use crate::topology::Nodes;
use calls::{Gather, Open};
pub(crate) use links::Event;
use links::Link;
use time::Due;

/// How much is done before other tasks of the thread have their turn.
const TURN: usize = 512;

pub(crate) struct Driver {
    config: Arc<RedisConfig>,
    /// Where pushes to this process go.
    channel: String,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedReceiver<Event>,
    /// For tasks that report to this one.
    reporter: mpsc::UnboundedSender<Event>,
    nodes: Nodes,
    links: HashMap<String, Link>,
    last_link: u64,
    /// Failed tries to connect in a row, by node.
    failures: HashMap<String, u32>,
    /// Nodes that were connected to before.
    known: HashSet<String>,
    /// Whether the cluster's slots are being asked for.
    mapping: bool,
    /// What is sent and not answered, by number; numbers rise, so the first is the oldest.
    /// Boxed: the map moves them about.
    calls: BTreeMap<u64, Box<Open>>,
    last_call: u64,
    /// What waits for a connection.
    unsent: Vec<Open>,
    gathers: HashMap<u64, Gather>,
    questions: Vec<Question>,
    pledges: Pledges,
    /// Who waits in a server's queue, by the lock's hash.
    lines: HashMap<String, Line>,
    /// Locks that were contended lately, until when: the short scripts would be sent in vain.
    contended: HashMap<String, Instant>,
    /// Locks whose stream was there lately: to enter it takes no script.
    streams: HashSet<String>,
    /// Locks to be looked at when an offer ends unclaimed.
    nudges: HashSet<String>,
    dues: BTreeMap<(Instant, u64), Due>,
    last_due: u64,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    debts: Arc<DebtCount>,
    /// Whether the debts will be looked at.
    dunning: bool,
    closed: bool,
    orphaned: bool,
    /// Who waits for the debts to be paid, until when.
    closing: Vec<(Instant, Listener<()>)>,
    confirmers: HashMap<String, crate::confirm::Confirmer>,
}

/// The waiters of this process for one lock. One of them looks after all, in case a push is lost.
#[derive(Debug)]
struct Line {
    attempts: BTreeSet<OwnerToken>,
    ask_at: Instant,
}

/// What is to be inspected, and since when.
pub(crate) type Question = (Instant, InspectQuery, Listener<Vec<KeyReport>>);

/// An answer to the call of that number.
type Reply = (u64, RedisResult<Value>);

impl Driver {
    pub(crate) fn new(
        config: Arc<RedisConfig>,
        nodes: Nodes,
        channel: String,
        commands: mpsc::UnboundedReceiver<Command>,
        debts: Arc<DebtCount>,
    ) -> Self {
        let (reporter, events) = mpsc::unbounded_channel();
        Self {
            config,
            channel,
            commands,
            events,
            reporter,
            nodes,
            links: HashMap::new(),
            last_link: 0,
            failures: HashMap::new(),
            known: HashSet::new(),
            mapping: false,
            calls: BTreeMap::new(),
            last_call: 0,
            unsent: Vec::new(),
            gathers: HashMap::new(),
            questions: Vec::new(),
            pledges: Pledges::counted_in(Arc::clone(&debts)),
            lines: HashMap::new(),
            contended: HashMap::new(),
            streams: HashSet::new(),
            nudges: HashSet::new(),
            dues: BTreeMap::new(),
            last_due: 0,
            alarm: None,
            debts,
            dunning: false,
            closed: false,
            orphaned: false,
            closing: Vec::new(),
            confirmers: HashMap::new(),
        }
    }

    /// Ends when every handle is gone and every debt is paid.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(move |context| self.turn(context)).await;
    }

    /// Does all that can be done now. Answers first: they make room for what is asked.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut done = 0;
        while done < TURN {
            let before = done;
            done += self.hear_answers(context);
            while let Poll::Ready(Some(event)) = self.events.poll_recv(context) {
                self.heed(event);
                done += 1;
            }
            while !self.orphaned
                && let Poll::Ready(command) = self.commands.poll_recv(context)
            {
                match command {
                    Some(command) => self.obey(command),
                    None => self.orphaned = true,
                }
                done += 1;
            }
            if self.is_time(context) {
                self.look_at_time();
                done += 1;
            }
            if done == before {
                let over = self.orphaned && !self.pledges.has_debts() && self.calls.is_empty();
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn hear_answers(&mut self, context: &mut Context<'_>) -> usize {
        let mut replies: Vec<Reply> = Vec::new();
        for link in self.links.values_mut() {
            link.poll(context, &mut replies);
        }
        let count = replies.len();
        for (number, result) in replies {
            self.answered(number, result);
        }
        count
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Acquire(application, listener) => self.acquire(*application, listener),
            Command::Abandon {
                key,
                names,
                attempt,
            } => {
                self.abandon(key, names, attempt);
                self.debts.heard();
            }
            Command::Release {
                key,
                names,
                attempt,
                listener,
            } => self.release(key, names, attempt, listener),
            Command::Alter {
                key,
                names,
                grant,
                change,
                listener,
            } => self.alter(key, names, grant, change, listener),
            Command::Renew { batch, listener } => self.renew(batch, Some(listener)),
            Command::AcquireMany { wanted, listener } => self.acquire_many(wanted, listener),
            Command::Inspect { query, listener } => {
                self.questions.push((Instant::now(), query, listener));
                self.answer_questions();
                self.due_at(Instant::now() + self.patience(), Due::Patience);
            }
            Command::Break {
                names,
                attempt,
                listener,
            } => self.take_away(names, attempt, listener),
            Command::Close { listener } => self.close(listener),
        }
    }

    /// How long a call is tried again before its caller hears that the server does not answer.
    fn patience(&self) -> Duration {
        self.config.response_timeout * 2
    }

    fn slot(&self, names: &crate::names::Names) -> u16 {
        if self.nodes.is_cluster() {
            names.slot()
        } else {
            0
        }
    }
}
