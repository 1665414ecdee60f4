//! A scraper: many workers, one visitor per host at a time, a budget for all of them together.
//!
//! ```text
//! cargo run -p lock-examples --example worker_pool
//! ```
//!
//! Tasks and threads fetch pages of several hosts. One exclusive lock per host keeps them polite; one
//! lock with four permits keeps the whole pool within its budget. Tasks `.await` and threads `.wait()`
//! in the same queues.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lock_manager::{AcquireOptions, Config, Lock, LockManager, Mode, Result};

const HOSTS: [&str; 6] = [
    "docs.test",
    "news.test",
    "shop.test",
    "wiki.test",
    "blog.test",
    "code.test",
];
const PAGES_PER_HOST: u32 = 8;
const TASKS: usize = 8;
const THREADS: usize = 2;
/// Pages fetched at the same time, over all hosts.
const BUDGET: u32 = 4;
const FETCH_TIME: Duration = Duration::from_millis(10);

struct Page {
    /// Which of `HOSTS`.
    host: usize,
    number: u32,
}

struct Scraper {
    manager: LockManager,
    budget: Lock,
    pages: Mutex<Vec<Page>>,
    witness: Witness,
}

impl Scraper {
    fn new(manager: LockManager) -> Result<Self> {
        let permit = AcquireOptions::new().mode(Mode::permit(BUDGET)?);
        let pages = (0..PAGES_PER_HOST)
            .flat_map(|number| (0..HOSTS.len()).map(move |host| Page { host, number }));
        Ok(Self {
            budget: manager.lock("scraper/budget")?.with_options(permit),
            manager,
            pages: Mutex::new(pages.collect()),
            witness: Witness::default(),
        })
    }

    fn next_page(&self) -> Option<Page> {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    /// Every host has a lock of its own; hosts that nobody visits cost nothing.
    fn host(&self, page: &Page) -> Result<Lock> {
        self.manager
            .lock(format!("scraper/host/{}", HOSTS[page.host]))
    }

    /// Works as a task.
    async fn work(self: Arc<Self>) -> Result<()> {
        while let Some(page) = self.next_page() {
            // The host first: a permit taken before would lie idle while its holder waits.
            let _host = self.host(&page)?.acquire().await?;
            let _permit = self.budget.acquire().await?;
            self.witness.arrive(&page);
            // sleep: stands for the network
            tokio::time::sleep(FETCH_TIME).await;
            self.witness.leave(&page);
        }
        Ok(())
    }

    /// Works as a thread: the same locks, the same queues.
    fn work_blocking(&self) -> Result<()> {
        while let Some(page) = self.next_page() {
            let _host = self.host(&page)?.acquire().wait()?;
            let _permit = self.budget.acquire().wait()?;
            self.witness.arrive(&page);
            // sleep: stands for the network
            thread::sleep(FETCH_TIME);
            self.witness.leave(&page);
        }
        Ok(())
    }
}

/// Counts who is where, and objects at once.
#[derive(Default)]
struct Witness {
    fetching: AtomicU32,
    most: AtomicU32,
    fetched: AtomicU32,
    at_host: [AtomicU32; HOSTS.len()],
}

impl Witness {
    fn arrive(&self, page: &Page) {
        let fetching = self.fetching.fetch_add(1, SeqCst) + 1;
        assert!(fetching <= BUDGET, "{fetching} fetch at the same time");
        self.most.fetch_max(fetching, SeqCst);
        let others = self.at_host[page.host].fetch_add(1, SeqCst);
        assert_eq!(
            others, 0,
            "not alone at page {} of {}",
            page.number, HOSTS[page.host]
        );
    }

    fn leave(&self, page: &Page) {
        self.fetched.fetch_add(1, SeqCst);
        self.at_host[page.host].fetch_sub(1, SeqCst);
        self.fetching.fetch_sub(1, SeqCst);
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let scraper = Arc::new(Scraper::new(LockManager::new(Config::default())?)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| runtime.spawn(Arc::clone(&scraper).work()))
        .collect();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| Arc::clone(&scraper))
        .map(|scraper| thread::spawn(move || scraper.work_blocking()))
        .collect();

    for task in tasks {
        runtime.block_on(task)??;
    }
    for thread in threads {
        thread.join().map_err(|_| "a worker thread panicked")??;
    }

    let witness = &scraper.witness;
    let fetched = witness.fetched.load(SeqCst);
    assert_eq!(fetched, PAGES_PER_HOST * HOSTS.len() as u32);
    println!(
        "{fetched} pages of {} hosts by {TASKS} tasks and {THREADS} threads: \
         at most {} at a time (budget {BUDGET}), never two at one host",
        HOSTS.len(),
        witness.most.load(SeqCst),
    );
    Ok(())
}
