//! Where the servers are, who we are to them, and how patient to be.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lock_core::{ErrorKind, Result};

use crate::error::error;

/// Where the servers are, who we are to them, and how patient to be. Every setting has a default.
///
/// With the crate feature `serde` it can be read from a configuration file; durations are strings
/// such as `"15s"`.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// The servers of one cluster, as `http://` or `https://` addresses; name all of them, so that
    /// the loss of one is not noticed. Default: `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What every key in the store begins with. Processes exclude each other when they use the same
    /// cluster and prefix. Default: `locks`.
    pub prefix: String,
    /// Who we are, where the servers ask for it. Default: nobody.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<Secret>,
    /// Files for TLS. Default: the system's roots for `https://` addresses.
    pub tls: EtcdTls,
    /// The life of the process's lease between renewals; whole seconds, at least 2. A shorter one
    /// frees a crashed process's locks sooner, and survives shorter outages: below 5 s the loss of
    /// a leader may be a loss of locks. Default: 15 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub lease: Duration,
    /// After how long a connection attempt counts as failed. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub connect_timeout: Duration,
    /// After how long a request counts as unanswered, if the server has answered nothing else
    /// meanwhile: one that does is slow, and may take `patience`. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub request_timeout: Duration,
    /// How long an acquire tries to reach a server before it fails as unavailable. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub patience: Duration,
    /// How often a waiter looks by itself, in case an event got lost. Default: 3 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub check_again: Duration,
}

/// Files for TLS, in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct EtcdTls {
    /// Who signs the servers' certificates. Default: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate, where the servers ask for one.
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`.
    pub key: Option<PathBuf>,
    /// The name that the servers' certificates must carry. Default: the host of the address.
    pub server_name: Option<String>,
}

/// A text that `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(transparent)
)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl EtcdConfig {
    /// The shortest lease that the servers grant with their usual settings.
    pub const MIN_LEASE: Duration = Duration::from_secs(2);
    /// The longest lease.
    pub const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

    /// The defaults, with these servers.
    pub fn with_endpoints<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(error(ErrorKind::InvalidConfig, what));
        if self.endpoints.is_empty() {
            return wrong("`endpoints` is empty; name the servers of the cluster".into());
        }
        if self.endpoints.iter().any(|address| address.contains('@')) {
            return wrong("`endpoints` names a user; write `user` and `password` instead".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if self.prefix.is_empty() || !self.prefix.chars().all(plain) {
            return wrong(format!(
                "`prefix` is `{}`; write letters, digits, and any of `-_./`",
                self.prefix.escape_debug()
            ));
        }
        if self.user.is_some() != self.password.is_some() {
            return wrong("`user` and `password` belong together; set both or none".into());
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return wrong("`tls.certificate` and `tls.key` belong together; set both".into());
        }
        if !(Self::MIN_LEASE..=Self::MAX_LEASE).contains(&self.lease) {
            return wrong(format!(
                "`lease` is {:?}; write \"2s\" to \"24h\"",
                self.lease
            ));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("patience", self.patience),
            ("check_again", self.check_again),
        ];
        match times.iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => wrong(format!("`{name}` is zero; write a duration")),
            None => Ok(()),
        }
    }
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "locks".into(),
            user: None,
            password: None,
            tls: EtcdTls::default(),
            lease: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            check_again: Duration::from_secs(3),
        }
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may name a user, which is refused when it is used.
        let hidden = |address: &String| match address.rsplit_once('@') {
            Some((_, host)) => format!("(..)@{host}"),
            None => address.clone(),
        };
        let shown: Vec<String> = self.endpoints.iter().map(hidden).collect();
        f.debug_struct("EtcdConfig")
            .field("endpoints", &shown)
            .field("prefix", &self.prefix)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("tls", &self.tls)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
