//! Passwords never appear in an error, a log line or `Debug`, whatever goes wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error as _;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::{AcquireOptions, Error, Keepalive, Lock, LockBackend, LockKey, block_on};
use lock_redis::{RedisBackend, RedisConfig};
use lock_testkit::services::redis::{RedisOptions, RedisServer};
use tracing::field::{Field, Visit};
use tracing::span;

const SECRET: &str = "hunter2-swordfish";
/// What must be seen, or the test looks at nothing.
const MARKER: &str = "a line that is logged";

/// All that is shown to people: logs of every thread, errors, and `Debug`.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn note(&self, what: &dyn Debug) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(text, "{what:?}");
    }

    fn note_error(&self, error: &Error) {
        self.note(error);
        self.note(&error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            self.note(&cause.to_string());
            self.note(&cause);
            source = cause.source();
        }
    }

    fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(&(field.name(), value));
    }
}

impl tracing::Subscriber for Shown {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Goes through a lock's life and notes all that is shown on the way.
fn live(mut config: RedisConfig, shown: &Shown) -> Result<(), Error> {
    config.retry_times = 1;
    config.retry_delay = Duration::from_millis(20);
    config.connect_timeout = Duration::from_millis(500);
    shown.note(&config);
    let backend = RedisBackend::new(config)?;
    shown.note(&backend);
    let backend: Arc<dyn LockBackend> = Arc::new(Keepalive::new(Arc::new(backend)));
    let lock = Lock::new(Arc::clone(&backend), LockKey::new("a")?);
    let patience = AcquireOptions::new().wait_limit(Duration::from_secs(10));
    let lived = lock.acquire_with(&patience).wait().and_then(|guard| {
        shown.note(&guard);
        guard.release_blocking()
    });
    shown.note(&(&lock, &backend));
    let closed = block_on(backend.close());
    lived.and(closed)
}

#[test]
fn passwords_are_not_shown_whatever_goes_wrong() {
    let shown = Shown::default();
    tracing::subscriber::set_global_default(shown.clone()).unwrap();
    tracing::info!("{MARKER}");

    let options = RedisOptions::default()
        .with_password(SECRET)
        .with_user(&format!("narrow on >{SECRET}-2 ~other:* +@all"))
        .with_tls();
    let server = RedisServer::start_with(options).unwrap();
    let (host, socket) = (format!("127.0.0.1:{}", server.port()), server.socket_url());
    let tls = format!("localhost:{}", server.tls_port().unwrap());

    let apart = |mut config: RedisConfig| {
        config.username = Some("default".into());
        config.password = Some(SECRET.into());
        config
    };
    for works in [
        RedisConfig::at(format!("redis://:{SECRET}@{host}/")),
        RedisConfig::at(format!("{socket}?pass={SECRET}")),
        apart(RedisConfig::at(format!("redis://{host}/"))),
    ] {
        live(works, &shown).unwrap();
    }
    let fails = [
        // Wrong ones are secrets too: they are often right somewhere else.
        RedisConfig::at(format!("redis://:{SECRET}-wrong@{host}/")),
        RedisConfig::at(format!("redis://narrow:{SECRET}-2@{host}/")),
        RedisConfig::at(format!("redis://:{SECRET}@127.0.0.1:1/")),
        RedisConfig::at(format!("redis://:{SECRET}@no.such.host.invalid/")),
        RedisConfig::at(format!("rediss://:{SECRET}@{tls}/")),
        RedisConfig::at(format!("redis://:{SECRET}@{host}/many")),
        RedisConfig::at(format!("redis://:{SECRET}@{host}/99")),
        RedisConfig::at(format!("http://:{SECRET}@{host}/")),
        RedisConfig::at(format!("redis://user:{SECRET}@host:port/")),
        RedisConfig::at(format!("redis+unix:///nowhere?pass={SECRET}")),
        apart(RedisConfig::at("redis://127.0.0.1:1/")),
        RedisConfig::sentinel([format!("redis://:{SECRET}@{host}/")], "locks"),
        RedisConfig::cluster([format!("redis://:{SECRET}@{host}/")]),
    ];
    // Each waits for something else.
    std::thread::scope(|scope| {
        for config in fails {
            let shown = &shown;
            scope.spawn(move || {
                let what = format!("{config:?}");
                match live(config, shown) {
                    Ok(()) => panic!("{what} worked"),
                    Err(error) => shown.note_error(&error),
                }
            });
        }
    });
    // An answer that is an error, and a server that ends while it is in use.
    server.query::<()>("SET lock:{a} data").unwrap();
    let failing = RedisConfig::at(format!("redis://:{SECRET}@{host}/"));
    shown.note_error(&live(failing.clone(), &shown).unwrap_err());
    server.kill().unwrap();
    shown.note_error(&live(failing, &shown).unwrap_err());

    let text = shown.text();
    assert!(
        text.contains(MARKER) && text.contains("RedisConfig"),
        "{text}"
    );
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("hunter2"))
        .collect();
    assert!(found.is_empty(), "secrets are shown:\n{}", found.join("\n"));
}
