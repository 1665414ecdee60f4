//! `lockctl check`: which backend a configuration yields, why, and whether it works.

use std::time::{Duration, Instant};

use lock_core::{AcquireOptions, Lock, Scope};
use lock_manager::{BackendKind, Config, FileConfig, Pool};
use serde::Serialize;

use crate::args::{CheckArgs, Place};
use crate::failure::Failure;
use crate::open::{Opened, open};
use crate::output;

/// The key that is taken and given back. Always the same, so that it leaves no trail of files.
const PROBE: &str = "lockctl-check";

/// How long to wait for another `lockctl check` that is at it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found out.
#[derive(Debug, Serialize)]
struct Report {
    backend: String,
    /// How far its locks exclude.
    scope: String,
    /// How far they must, as the deployment is stated.
    needed: Needed,
    /// Where the configuration was read.
    source: String,
    /// Why this backend.
    why: String,
    /// Where its files are, if it has files.
    directory: Option<String>,
    namespace: String,
    fencing_epoch: u32,
    routes: Vec<RouteView>,
    probe: Probe,
    /// What to know before relying on it.
    notes: Vec<String>,
}

/// How far locks must exclude at least.
#[derive(Debug, Serialize)]
struct Needed {
    scope: String,
    /// Reads after "because".
    why: String,
}

/// Keys that another backend serves.
#[derive(Debug, Serialize)]
struct RouteView {
    pattern: String,
    backend: String,
}

/// How taking and giving back a lock went.
#[derive(Debug, Serialize)]
struct Probe {
    key: String,
    acquire_seconds: f64,
    release_seconds: f64,
    fencing_number: Option<u64>,
}

/// Checks a configuration and the backend that it yields.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let opened = open(&args.place)?;
    let report = Report::new(&opened, &args.place)?;
    opened.close();
    if args.json {
        return output::json(&report);
    }
    output::text(&for_people(&report))
}

impl Report {
    fn new(opened: &Opened, place: &Place) -> Result<Self, Failure> {
        let lock = opened.lock(PROBE)?;
        let capabilities = lock.backend().capabilities();
        let config = opened.manager().config();
        let routes = config.routes.iter().map(|route| RouteView {
            pattern: route.pattern.clone(),
            backend: route.backend.clone(),
        });
        let need = config.need();
        let source = match &place.config {
            Some(path) => path.display().to_string(),
            None => "none, defaults of lockctl".to_owned(),
        };
        Ok(Self {
            backend: capabilities.name.to_owned(),
            scope: capabilities.scope.to_string(),
            needed: Needed {
                scope: need.scope().to_string(),
                why: need.why().to_owned(),
            },
            source,
            why: why(config, place),
            directory: directory(config, capabilities.name),
            namespace: config.namespace.clone(),
            fencing_epoch: config.fencing_epoch,
            routes: routes.collect(),
            probe: probe(&lock)?,
            notes: notes(capabilities.scope),
        })
    }
}

/// The settings that decide, in a sentence.
fn why(config: &Config, place: &Place) -> String {
    if place.config.is_none() {
        return "lockctl uses files when there is no configuration".to_owned();
    }
    let mut stated = Vec::new();
    if let Some(pool) = config.pool {
        stated.push(format!("pool is {}", Pool::name(pool)));
    }
    for (name, number) in [
        ("worker_processes", config.worker_processes),
        ("hosts", config.hosts),
    ] {
        stated.extend(number.map(|number| format!("{name} is {number}")));
    }
    let stated = match stated.as_slice() {
        [] => "neither pool, worker_processes nor hosts is stated".to_owned(),
        stated => stated.join(", "),
    };
    match &config.backend {
        Some(_) => format!("backend names it, and it reaches as far as is needed: {stated}"),
        None => format!("of the backends configured it suits what is stated: {stated}"),
    }
}

/// Where a backend that has files keeps them.
fn directory(config: &Config, backend: &str) -> Option<String> {
    if BackendKind::from_name(backend) != Some(BackendKind::File) {
        return None;
    }
    let configured = config.file.as_ref().and_then(|file| file.directory.clone());
    let directory = configured.unwrap_or_else(FileConfig::per_user_directory);
    Some(directory.display().to_string())
}

/// Takes and gives back the probe key.
fn probe(lock: &Lock) -> Result<Probe, Failure> {
    let options = AcquireOptions::new()
        .wait_limit(PATIENCE)
        .label("lockctl check");
    let started = Instant::now();
    let guard = lock.acquire_with(&options).wait()?;
    let acquired = Instant::now();
    let fencing = guard.fencing_token().map(|token| token.number().get());
    guard.release_blocking()?;
    Ok(Probe {
        key: lock.key().name().to_owned(),
        acquire_seconds: (acquired - started).as_secs_f64(),
        release_seconds: acquired.elapsed().as_secs_f64(),
        fencing_number: fencing,
    })
}

fn notes(scope: Scope) -> Vec<String> {
    match scope {
        Scope::Process => {
            vec!["`lockctl run` refuses this backend: each run is a process of its own".to_owned()]
        }
        Scope::Host | Scope::Network => Vec::new(),
    }
}

fn for_people(report: &Report) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let or_none = |text: &str| match text {
        "" => "(none)".to_owned(),
        text => text.to_owned(),
    };
    let mut rows = vec![
        row("backend", report.backend.clone()),
        row("reaches", report.scope.clone()),
        row(
            "needed",
            format!("{}: {}", report.needed.scope, report.needed.why),
        ),
        row("configuration", report.source.clone()),
        row("why", report.why.clone()),
    ];
    rows.extend(report.directory.clone().map(|path| row("directory", path)));
    rows.push(row("namespace", or_none(&report.namespace)));
    rows.push(row("fencing epoch", report.fencing_epoch.to_string()));
    for RouteView { pattern, backend } in &report.routes {
        rows.push(row("route", format!("{pattern} to {backend}")));
    }
    let Probe {
        acquire_seconds: acquire,
        release_seconds: release,
        fencing_number,
        ..
    } = &report.probe;
    let (acquire, release) = (acquire * 1e3, release * 1e3);
    let probe = format!("acquired in {acquire:.3} ms, released in {release:.3} ms");
    rows.push(row("probe", probe));
    rows.extend(fencing_number.map(|number| row("fencing number", number.to_string())));
    rows.extend(report.notes.iter().map(|note| row("note", note.clone())));
    output::table(&rows)
}
