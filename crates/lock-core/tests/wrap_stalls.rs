//! Long holds are reported, with who and where.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Memory, eventually, key};
use lock_core::wrap::{Deadlock, WaitGraph};
use lock_core::{AcquireOptions, Lock, Mode, OwnerId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps what is reported, one line for each.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    fn about(&self, what: &str) -> Vec<String> {
        let reports = self.0.lock().expect("no panic");
        reports
            .iter()
            .filter(|it| it.contains(what))
            .cloned()
            .collect()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Reports {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_long_hold_is_reported_once_with_owner_and_site() {
    let reports = Reports::default();
    tracing::subscriber::set_global_default(reports.clone()).unwrap();
    let graph = WaitGraph::reporting_holds_longer_than(Duration::from_millis(100));
    let watched = Deadlock::sharing(Memory::new(), graph);
    let lock = |name: &str| Lock::new(Arc::new(watched.of_key(&key(name))), key(name));
    let owner = OwnerId::new();
    let job = AcquireOptions::new().owner(owner);

    let line = line!() + 1;
    let long = lock("long").acquire_with(&job).wait().unwrap();
    let shared = job.clone().mode(Mode::Shared);
    let _reading = lock("read").acquire_with(&shared).wait().unwrap();
    // Always held by somebody, and never long by one.
    let short = lock("short");
    eventually("both are reported", || {
        drop(short.acquire_with(&job).wait().unwrap());
        !reports.about("key=long").is_empty() && !reports.about("key=read").is_empty()
    });
    let report = &reports.about("key=long")[0];
    assert!(report.contains(&format!("owner={owner} ")), "{report}");
    assert!(
        report.contains(&format!("wrap_stalls.rs:{line}:")),
        "{report}"
    );
    assert!(report.contains("longer than 100ms"), "{report}");

    // A second long hold of the key is another one; the first is told once.
    drop(long);
    let _again = lock("long").acquire_with(&job).wait().unwrap();
    eventually("the second one", || reports.about("key=long").len() > 1);
    assert_eq!(reports.about("key=long").len(), 2);
    assert_eq!(reports.about("key=read").len(), 1);
    assert!(reports.about("key=short").is_empty());
}
