//! The queue of commands, and the thread that takes them along in batches.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{ErrorKind, Handoff, Result, fork, runtime};

use crate::batch::{Command, Work, run_all, run_one};
use crate::database::Database;
use crate::error::error;
use crate::news::News;
use crate::office::Office;
use crate::session::Session;
use crate::{log, patrol};

/// How long the writer waits for a crowd to come back …
const LINGER: Duration = Duration::from_micros(100);
/// … and for its next one, once several have come.
const STILL: Duration = Duration::from_micros(10);

/// Commands that found the connection at work.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<Box<dyn Command>>>,
    len: AtomicUsize,
    /// A thread works on it, or is about to. Sequentially consistent, with `len`: the thread clears it
    /// and then looks for more, whoever brings more does so before looking at it, and one of the two
    /// has to see the other.
    at_work: AtomicBool,
    /// Callers leave their commands in the queue even if the connection is idle: the writer is about
    /// to take it, or took several commands along, and the next transaction shall be as large.
    is_preferred: AtomicBool,
    /// Something is to be looked at beside the commands.
    patrol: patrol::Orders,
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn is_preferred(&self) -> bool {
        self.is_preferred.load(Ordering::Relaxed)
    }

    fn prefer(&self, is_preferred: bool) {
        self.is_preferred.store(is_preferred, Ordering::Relaxed);
    }

    pub(crate) fn patrol(&self) -> &patrol::Orders {
        &self.patrol
    }

    fn push(&self, command: Box<dyn Command>) {
        let mut queue = self.queue();
        queue.push_back(command);
        self.len.store(queue.len(), Ordering::SeqCst);
    }

    fn take(&self, most: usize) -> Vec<Box<dyn Command>> {
        let mut queue = self.queue();
        let count = queue.len().min(most);
        let taken = queue.drain(..count).collect();
        self.len.store(queue.len(), Ordering::SeqCst);
        taken
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Box<dyn Command>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Leaves a command for the writer.
pub(crate) fn submit(office: &Arc<Office>, command: Box<dyn Command>) {
    office.inbox().push(command);
    start(office);
}

/// Makes sure that a thread works on what is there.
pub(crate) fn start(office: &Arc<Office>) {
    if !office.inbox().at_work.swap(true, Ordering::SeqCst) {
        let office = Arc::clone(office);
        runtime::handle().spawn_blocking(move || work(&office));
    }
}

fn work(office: &Arc<Office>) {
    loop {
        while is_needed(office) || linger(office) {
            // The next commands are not to pay for one that panics.
            if catch_unwind(AssertUnwindSafe(|| round(office))).is_err() {
                office.inbox().prefer(false);
            }
        }
        office.inbox().at_work.store(false, Ordering::SeqCst);
        // Something may have come after the last look, and found this thread still at work.
        if !is_needed(office) || office.inbox().at_work.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

fn is_needed(office: &Office) -> bool {
    !office.inbox().is_empty() || office.inbox().patrol.are_given()
}

/// Gives a crowd the time to come back. Says whether it did. If not, it is a crowd all the same, until
/// a command comes alone.
fn linger(office: &Office) -> bool {
    if !office.inbox().is_preferred() {
        return false;
    }
    let until = Instant::now() + LINGER;
    while !until.has_passed() {
        std::thread::yield_now();
        if is_needed(office) {
            return true;
        }
    }
    false
}

/// Waits while a queue of several commands still grows.
fn gather(office: &Office) {
    let mut seen = 1;
    let mut until = Instant::now();
    loop {
        let len = office.inbox().len.load(Ordering::SeqCst);
        if len > seen {
            seen = len;
            until = Instant::now() + STILL;
        }
        if len >= office.batch() || until.has_passed() {
            return;
        }
        std::thread::yield_now();
    }
}

/// One transaction, and what else is due.
fn round(office: &Arc<Office>) {
    let calm = fork::undisturbed();
    // Or callers that come again at once would leave it no gap.
    office.inbox().prefer(true);
    office.log().make_room();
    let engine = office.engine();
    gather(office);
    // Invariant: taken out with the connection in hand, so that whoever finds the queue empty and the
    // connection free comes after them.
    let mut batch = Batch::take(office);
    let outcome = match engine.as_ref() {
        None => Err(crate::office::closed()),
        Some(database) => {
            database.be_patient(office.busy_limit());
            let run = match &mut batch.commands[..] {
                [] => Ok(Vec::new()),
                [command] => run_one(database, office.session(), &mut **command),
                many => {
                    let each = many.iter_mut().map(|command| &mut **command);
                    run_all(database, office.session(), each)
                }
            };
            run.map_err(|source| office.failed(source))
        }
    };
    let seen = engine
        .as_ref()
        .and_then(|database| patrol::look(office, database));
    office.inbox().prefer(batch.commands.len() > 1);
    drop(engine);
    drop(calm);
    log::keep_short(office);
    let news = batch.settle(outcome);
    office.deliver(news);
    if let Some(seen) = seen {
        patrol::act(office, seen);
    }
}

/// Commands of one transaction. Dropped, it settles them: each, also when one of them panics.
struct Batch<'o> {
    office: &'o Arc<Office>,
    commands: Vec<Box<dyn Command>>,
    outcome: Result<()>,
}

impl<'o> Batch<'o> {
    fn take(office: &'o Arc<Office>) -> Self {
        Self {
            office,
            commands: office.inbox().take(office.batch()),
            outcome: Err(error(ErrorKind::Backend, "a command of the batch panicked")),
        }
    }

    fn settle(mut self, outcome: Result<News>) -> News {
        let (outcome, news) = match outcome {
            Ok(news) => (Ok(()), news),
            Err(error) => (Err(error), News::new()),
        };
        self.outcome = outcome;
        news
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for command in &mut self.commands {
            // An observer of the user's may panic: the next commands are not to pay for that.
            let settle = || command.settle(self.office, &self.outcome);
            let _ = catch_unwind(AssertUnwindSafe(settle));
        }
    }
}

/// A command that hands itself back when it is over.
pub(crate) struct Carried<C> {
    command: Option<C>,
    answer: Arc<Handoff<(C, Result<()>)>>,
}

impl<C: Command> Carried<C> {
    pub(crate) fn new(command: C, answer: &Arc<Handoff<(C, Result<()>)>>) -> Box<Self> {
        Box::new(Self {
            command: Some(command),
            answer: Arc::clone(answer),
        })
    }
}

impl<C: Command> Command for Carried<C> {
    fn run_alone(&mut self, database: &Database, session: &Session) -> rusqlite::Result<bool> {
        match &mut self.command {
            Some(command) => command.run_alone(database, session),
            None => Ok(true),
        }
    }

    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        match &mut self.command {
            Some(command) => command.run(work),
            None => Ok(()),
        }
    }

    fn settle(&mut self, office: &Arc<Office>, outcome: &Result<()>) {
        let Some(mut command) = self.command.take() else {
            return;
        };
        command.settle(office, outcome);
        if let Some(waker) = self.answer.give((command, outcome.clone())) {
            runtime::wake(waker);
        }
    }
}

impl<C> Drop for Carried<C> {
    /// A command that was never run still has an answer.
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            let over = Err(error(ErrorKind::Closed, "the backend is gone"));
            if let Some(waker) = self.answer.give((command, over)) {
                runtime::wake(waker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::SqliteConfig;
    use crate::location::Location;

    /// Works, except for what it is told to fail at.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Probe {
        Works,
        PanicsAtWork,
        PanicsWhenSettled,
    }

    impl Command for Probe {
        fn run(&mut self, _work: &mut Work<'_>) -> rusqlite::Result<()> {
            assert_ne!(*self, Self::PanicsAtWork);
            Ok(())
        }

        fn settle(&mut self, _office: &Arc<Office>, _outcome: &Result<()>) {
            assert_ne!(*self, Self::PanicsWhenSettled);
        }
    }

    #[test]
    fn a_command_that_panics_leaves_the_others_an_answer_and_the_database_free() {
        let private = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir();
        let config = SqliteConfig::at(directory.as_ref().unwrap().path().join("l.db"));
        let open = || Office::open(&config, &Location::prepare(&config).unwrap()).unwrap();
        let (office, other) = (open(), open());
        for trouble in [Probe::PanicsWhenSettled, Probe::PanicsAtWork] {
            let answer = Arc::new(Handoff::new());
            // The writer waits for it, so both are in one batch.
            let engine = office.engine();
            submit(&office, Box::new(trouble));
            submit(&office, Carried::new(Probe::Works, &answer));
            drop(engine);
            let answered = std::future::poll_fn(|context| answer.poll_take(context));
            let (_, outcome) = runtime::handle().block_on(answered);
            assert_eq!(outcome.is_err(), trouble == Probe::PanicsAtWork);
            let later = runtime::handle().block_on(other.perform(Probe::Works));
            assert!(later.1.is_ok(), "the other process: {:?}", later.1);
        }
    }
}
