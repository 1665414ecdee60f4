//! One server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{ErrorKind, Result};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::config::{EtcdConfig, EtcdTls};
use crate::error::{Failure, error};

/// How often a connection with open streams is tested. Servers end connections that are tested more
/// often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(6);
/// How long a server may take to answer such a test.
const PING_WITHIN: Duration = Duration::from_secs(3);
/// How long a server that failed is avoided, the first time and at most.
const AVOID: Duration = Duration::from_millis(500);
const AVOID_AT_MOST: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(super) struct Endpoint {
    address: String,
    transport: tonic::transport::Endpoint,
    connect_timeout: Duration,
    state: Mutex<State>,
    /// One connects, the others wait for it; when the last one failed, and how.
    connecting: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

#[derive(Debug)]
struct State {
    channel: Option<Channel>,
    /// When it last answered anybody.
    heard: Instant,
    avoid_until: Instant,
    avoid_for: Duration,
}

impl Endpoint {
    pub(super) fn new(address: &str, config: &EtcdConfig) -> Result<Self> {
        let wrong = |why: String| {
            error(
                ErrorKind::InvalidConfig,
                format!("`endpoints` has `{address}`, {why}"),
            )
        };
        let secure = match address.split_once("://") {
            Some(("http", _)) => false,
            Some(("https", _)) => true,
            _ => {
                return Err(wrong(
                    "write `http://host:2379` or `https://host:2379`".into(),
                ));
            }
        };
        let mut transport = tonic::transport::Endpoint::from_shared(address.to_owned())
            .map_err(|source| wrong("which is no address".into()).with_source(source))?
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            // Servers take tests of an idle connection for an attack.
            .keep_alive_while_idle(false);
        if secure {
            transport = transport
                .tls_config(tls(&config.tls)?)
                .map_err(|source| wrong("whose TLS cannot be set up".into()).with_source(source))?;
        }
        let state = State {
            channel: None,
            heard: Instant::from_nanos(0),
            avoid_until: Instant::from_nanos(0),
            avoid_for: AVOID,
        };
        Ok(Self {
            address: address.to_owned(),
            transport,
            connect_timeout: config.connect_timeout,
            state: Mutex::new(state),
            connecting: tokio::sync::Mutex::new(None),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// It has answered somebody.
    pub(super) fn hear(&self) {
        self.state().heard = Instant::now();
    }

    /// When it last answered anybody.
    pub(super) fn heard(&self) -> Instant {
        self.state().heard
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        self.state().avoid_until > now
    }

    /// The connection, which is made if there is none.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        if let Some(channel) = self.kept() {
            return Ok(channel);
        }
        let came = Instant::now();
        let mut last = self.connecting.lock().await;
        if let Some(channel) = self.kept() {
            return Ok(channel);
        }
        if let Some((at, failure)) = &*last
            && *at >= came
        {
            // The one we waited for has failed: so would we.
            return Err(failure.clone());
        }
        let failure = match self.connect().await {
            Ok(channel) => return Ok(channel),
            Err(why) => Failure::unsent(format!("cannot connect to {}: {why}", self.address)),
        };
        self.avoid();
        *last = Some((Instant::now(), failure.clone()));
        Err(failure)
    }

    async fn connect(&self) -> Result<Channel, String> {
        // The handshake of TLS has no limit of its own.
        let connected = tokio::time::timeout(self.connect_timeout * 2, self.transport.connect());
        match connected.await {
            Ok(Ok(channel)) => {
                self.state().channel = Some(channel.clone());
                Ok(channel)
            }
            Ok(Err(source)) => {
                let mut cause: &dyn std::error::Error = &source;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                Err(cause.to_string())
            }
            Err(_) => Err("not in time".to_owned()),
        }
    }

    fn kept(&self) -> Option<Channel> {
        self.state().channel.clone()
    }

    /// Drops the connection and stays away for a while, longer each time. Returns whether there was
    /// a connection to drop.
    pub(super) fn avoid(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        // Many requests fail at once when a server does.
        if state.avoid_until <= now {
            // It had worked for some time: that is no second failure in a row.
            if (state.avoid_until + AVOID_AT_MOST * 2).has_passed() {
                state.avoid_for = AVOID;
            }
            state.avoid_until = now + state.avoid_for;
            state.avoid_for = (state.avoid_for * 2).min(AVOID_AT_MOST);
        }
        state.channel.take().is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tls(config: &EtcdTls) -> Result<ClientTlsConfig> {
    let read = |setting: &str, path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|source| {
            error(
                ErrorKind::InvalidConfig,
                format!("`tls.{setting}` cannot be read from {}", path.display()),
            )
            .with_source(source)
        })
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &config.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read("ca", path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        let certificate = read("certificate", certificate)?;
        tls = tls.identity(Identity::from_pem(certificate, read("key", key)?));
    }
    if let Some(name) = &config.server_name {
        tls = tls.domain_name(name);
    }
    Ok(tls)
}
