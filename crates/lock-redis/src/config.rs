//! Which server, and how to talk to it.

use std::fmt;
use std::time::Duration;

/// Which server, and how to talk to it. Everything but `url` has a default.
///
/// With the crate feature `serde` it can be read from a configuration file; durations are strings
/// such as `"30s"`. Secrets in it never reach `Debug`, logs or errors.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server is: `redis://[user[:password]@]host[:port][/database]`, `rediss://…` for
    /// TLS, `redis+unix:///path?db=1&user=…&pass=…`. Several for a cluster or for sentinels.
    pub url: Urls,
    /// What the URLs lead to. Default: one server for one URL, a cluster for several, sentinels
    /// when `sentinel` is set.
    pub topology: Option<Topology>,
    /// The name of the master that the sentinels watch. Setting it makes the URLs those of
    /// sentinels.
    pub sentinel: Option<SentinelConfig>,
    /// The user, unless the URL has it.
    pub username: Option<String>,
    /// The password, unless the URL has it.
    pub password: Option<String>,
    /// What every key and channel starts with. Default: `lock`.
    pub prefix: String,
    /// The life of a lease between renewals. Default: 30 s. Also read as `expire_time`.
    #[cfg_attr(
        feature = "serde",
        serde(alias = "expire_time", with = "lock_core::duration_text")
    )]
    pub lease: Duration,
    /// How often a lost connection is tried again before pending acquires fail with `Unavailable`.
    /// Waiting for a *lock* needs no retries: its turn is pushed. Default: 60.
    pub retry_times: u32,
    /// The pause between two tries to connect. Default: 250 ms.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub retry_delay: Duration,
    /// How long connecting may take. Default: 2 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub connect_timeout: Duration,
    /// After how long without an answer a connection is given up. Default: 2 s.
    #[cfg_attr(feature = "serde", serde(with = "lock_core::duration_text"))]
    pub response_timeout: Duration,
    /// How many replicas must have an exclusive grant before it is returned, see GUARANTEES for
    /// what this does not promise. Default: 0.
    pub replicas: u32,
    /// How long after a start of the server nothing is granted, so that leases of its previous life
    /// end first. At least the longest lease in use, to be of use. Default: none.
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "lock_core::duration_text::positive",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub quarantine: Option<Duration>,
    /// Certificates for `rediss://` URLs.
    pub tls: TlsConfig,
    /// The protocol. Default: RESP3. RESP2, for proxies that know nothing else, takes a second
    /// connection for pushes.
    pub protocol: Protocol,
}

/// One URL, or several. Redacted in `Debug`.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(untagged)
)]
pub enum Urls {
    /// One server, or one node to start from.
    One(String),
    /// Nodes of a cluster, or sentinels.
    Several(Vec<String>),
}

/// What the URLs lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    Single,
    /// A Redis Cluster.
    Cluster,
    /// Sentinels, which say where the master is.
    Sentinel,
}

/// Which protocol the connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Protocol {
    /// Answers and pushes over one connection.
    #[default]
    Resp3,
    /// A second connection for pushes.
    Resp2,
}

/// The master behind the sentinels. `username` and `password` of the [`RedisConfig`] are the
/// master's; those of the sentinels stand in their URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct SentinelConfig {
    /// The name the sentinels know the master by.
    pub master: String,
    /// The master's database.
    pub database: i64,
    /// Whether the master speaks TLS. Default: as the sentinels do.
    pub tls: Option<bool>,
}

impl SentinelConfig {
    /// The master of this name.
    #[must_use]
    pub fn master(name: impl Into<String>) -> Self {
        Self {
            master: name.into(),
            ..Self::default()
        }
    }
}

/// Certificates, as paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Whom to trust. Default: the system's certificates.
    pub ca: Option<std::path::PathBuf>,
    /// The certificate that this client shows.
    pub certificate: Option<std::path::PathBuf>,
    /// Its private key.
    pub key: Option<std::path::PathBuf>,
}

impl RedisConfig {
    /// The shortest lease: below it a stall of the machine would be a loss.
    pub const MIN_LEASE: Duration = Duration::from_millis(100);
    /// The longest lease.
    pub const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

    /// The defaults, for one server.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: Urls::One(url.into()),
            ..Self::default()
        }
    }

    /// The defaults, for a cluster that these nodes belong to.
    #[must_use]
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            url: Urls::Several(urls.into_iter().map(Into::into).collect()),
            topology: Some(Topology::Cluster),
            ..Self::default()
        }
    }

    /// The defaults, for the master of this name behind these sentinels.
    #[must_use]
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> Self {
        Self {
            url: Urls::Several(urls.into_iter().map(Into::into).collect()),
            sentinel: Some(SentinelConfig::master(master)),
            ..Self::default()
        }
    }

    /// What the URLs lead to.
    pub(crate) fn topology(&self) -> Topology {
        let several = matches!(&self.url, Urls::Several(urls) if urls.len() > 1);
        match (self.topology, &self.sentinel) {
            (Some(topology), _) => topology,
            (None, Some(_)) => Topology::Sentinel,
            (None, None) if several => Topology::Cluster,
            (None, None) => Topology::Single,
        }
    }

    pub(crate) fn urls(&self) -> Vec<&str> {
        match &self.url {
            Urls::One(url) => vec![url],
            Urls::Several(urls) => urls.iter().map(String::as_str).collect(),
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: Urls::One(String::new()),
            topology: None,
            sentinel: None,
            username: None,
            password: None,
            prefix: "lock".into(),
            lease: Duration::from_secs(30),
            retry_times: 60,
            retry_delay: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            replicas: 0,
            quarantine: None,
            tls: TlsConfig::default(),
            protocol: Protocol::Resp3,
        }
    }
}

/// A URL without user, password and query.
pub(crate) fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, None), |(authority, path)| (authority, Some(path)));
    // The last `@`: a password may contain one that should have been encoded.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let tail = path.map(|path| format!("/{}", path.rsplit('@').next().unwrap_or_default()));
    format!("{scheme}://{host}{}", tail.unwrap_or_default())
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(url) => write!(f, "{:?}", redacted(url)),
            Self::Several(urls) => f
                .debug_list()
                .entries(urls.iter().map(|url| redacted(url)))
                .finish(),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url)
            .field("topology", &self.topology())
            .field("sentinel", &self.sentinel)
            .field("username", &self.username.as_ref().map(|_| "…"))
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .field("retry_times", &self.retry_times)
            .field("retry_delay", &self.retry_delay)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("replicas", &self.replicas)
            .field("quarantine", &self.quarantine)
            .field("tls", &self.tls)
            .field("protocol", &self.protocol)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut config = RedisConfig::at("redis://user:hunter2@host:1/3?pass=hunter2#hunter2");
        config.username = Some("hunter2".into());
        config.password = Some("hunter2".into());
        let shown = format!("{config:?}");
        assert!(
            shown.contains("redis://host:1/3") && !shown.contains("hunter2"),
            "{shown}"
        );
        for url in [
            "redis://:p@ss/word@host/0",
            "redis+unix:///tmp/s?pass=word",
            "rediss://u:word@h",
            "word:word@host",
        ] {
            let shown = redacted(url);
            assert!(!shown.contains("word"), "{url} became {shown}");
        }
    }

    #[test]
    fn the_urls_decide_the_topology_unless_it_is_named() {
        assert_eq!(RedisConfig::at("redis://a").topology(), Topology::Single);
        let nodes = ["redis://a", "redis://b"];
        assert_eq!(RedisConfig::cluster(nodes).topology(), Topology::Cluster);
        assert_eq!(
            RedisConfig::sentinel(nodes, "m").topology(),
            Topology::Sentinel
        );
    }
}
