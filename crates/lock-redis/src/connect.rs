//! Making one connection: TLS, login, checks of the server, and the subscription to our pushes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lock_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, PushKind, Value, from_redis_value,
};
use tokio::task::JoinHandle;

use crate::config::{Protocol, RedisConfig, Topology, redacted};
use crate::error::{connecting, error, too_old};

/// How many commands may wait to be written. Waiters come in thousands.
const PIPELINE: usize = 16 * 1024;
/// What is heard over a connection beside answers.
#[derive(Debug)]
pub(crate) enum News {
    /// A push to our channel.
    Message(String),
    /// The connection broke.
    Broken,
}

/// Where the news of one connection go.
pub(crate) type Ear = Arc<dyn Fn(News) + Send + Sync>;

/// A connection that is ready for use. Dropping it closes it.
pub(crate) struct Ready {
    pub(crate) connection: MultiplexedConnection,
    /// How long the server has been up, where that was asked for.
    pub(crate) uptime: Option<Duration>,
    /// The connection for pushes, where there is a second one.
    pub(crate) subscriber: Option<JoinHandle<()>>,
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(subscriber) = &self.subscriber {
            subscriber.abort();
        }
    }
}

/// Connects, checks that it is a server that we can work with, and subscribes to `channel`.
pub(crate) async fn connect(
    config: &RedisConfig,
    target: ConnectionInfo,
    channel: &str,
    ear: Ear,
) -> Result<Ready> {
    let place = place_of(&target);
    let limit = config.connect_timeout;
    let work = async {
        let client = client(config, target, &place)?;
        let mut options = options(config);
        if config.protocol == Protocol::Resp3 {
            let heard = Arc::clone(&ear);
            options = options.set_push_sender(move |push: PushInfo| {
                heed(&heard, push);
                Ok::<(), ()>(())
            });
        }
        let failed = |failure| connecting(&place, &failure);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&options)
            .await
            .map_err(failed)?;
        check(config, &mut connection, &place).await?;
        let uptime = match config.quarantine {
            Some(_) => Some(uptime(&mut connection).await.map_err(failed)?),
            None => None,
        };
        let subscriber = match config.protocol {
            Protocol::Resp3 => {
                connection.subscribe(channel).await.map_err(failed)?;
                None
            }
            Protocol::Resp2 => Some(listen(&client, channel, ear).await.map_err(failed)?),
        };
        Ok(Ready {
            connection,
            uptime,
            subscriber,
        })
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("{place} did not answer within {limit:?}");
        Err(error(ErrorKind::Unavailable, message))
    })
}

/// A connection without a subscription, for what must not share the first one.
pub(crate) async fn connect_plain(
    config: &RedisConfig,
    target: ConnectionInfo,
) -> Result<MultiplexedConnection> {
    let place = place_of(&target);
    let limit = config.connect_timeout;
    let client = client(config, target, &place)?;
    let options = options(config);
    let work = client.get_multiplexed_async_connection_with_config(&options);
    match tokio::time::timeout(limit, work).await {
        Ok(connection) => connection.map_err(|failure| connecting(&place, &failure)),
        Err(_) => Err(error(
            ErrorKind::Unavailable,
            format!("{place} did not answer within {limit:?}"),
        )),
    }
}

fn options(config: &RedisConfig) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        // The driver watches over answers itself: a late one still tells what became of an attempt.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE)
}

/// The target of a URL, with the settings that are not in it.
pub(crate) fn target(config: &RedisConfig, url: &str) -> Result<ConnectionInfo> {
    let info = url.into_connection_info().map_err(|failure| {
        let hint = "write redis://host:port/database, rediss:// for TLS, or redis+unix:///path";
        let detail = failure.detail().unwrap_or_default();
        error(
            ErrorKind::InvalidConfig,
            format!(
                "`{}` is no URL of a Redis server ({detail}); {hint}",
                redacted(url)
            ),
        )
    })?;
    Ok(with_settings(config, info))
}

fn with_settings(config: &RedisConfig, info: ConnectionInfo) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone();
    if let (None, Some(username)) = (settings.username(), &config.username) {
        settings = settings.set_username(username);
    }
    if let (None, Some(password)) = (settings.password(), &config.password) {
        settings = settings.set_password(password);
    }
    settings = settings
        .set_protocol(match config.protocol {
            Protocol::Resp3 => ProtocolVersion::RESP3,
            Protocol::Resp2 => ProtocolVersion::RESP2,
        })
        // One command, and one right, less.
        .set_skip_set_lib_name();
    // Requests of many callers share the connection: none waits until the one before is acknowledged.
    let tcp = TcpSettings::default().set_nodelay(true);
    info.set_redis_settings(settings).set_tcp_settings(tcp)
}

/// The same target on another node.
pub(crate) fn at_node(template: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let addr = match template.addr() {
        ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    };
    template.clone().set_addr(addr)
}

/// Where a target is, without its secrets.
pub(crate) fn place_of(target: &ConnectionInfo) -> String {
    target.addr().to_string()
}

fn client(config: &RedisConfig, target: ConnectionInfo, place: &str) -> Result<Client> {
    let tls = matches!(target.addr(), ConnectionAddr::TcpTls { .. });
    let client = if tls {
        with_tls(config, target)?
    } else {
        Client::open(target)
    };
    client.map_err(|failure| connecting(place, &failure))
}

#[cfg(feature = "tls")]
fn with_tls(config: &RedisConfig, target: ConnectionInfo) -> Result<redis::RedisResult<Client>> {
    // rustls panics at the first connection unless exactly one provider is installed. One that the
    // program has chosen stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let read = |path: &Option<std::path::PathBuf>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path).map(Some).map_err(|source| {
            error(
                ErrorKind::InvalidConfig,
                format!("cannot read {}", path.display()),
            )
            .with_source(source)
        }),
    };
    let client_tls = match (read(&config.tls.certificate)?, read(&config.tls.key)?) {
        (Some(client_cert), Some(client_key)) => Some(redis::ClientTlsConfig {
            client_cert,
            client_key,
        }),
        (None, None) => None,
        _ => {
            return Err(error(
                ErrorKind::InvalidConfig,
                "`tls.certificate` and `tls.key` belong together; set both or none",
            ));
        }
    };
    let root_cert = read(&config.tls.ca)?;
    let certificates = redis::TlsCertificates {
        client_tls,
        root_cert,
    };
    Ok(Client::build_with_tls(target, certificates))
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: &RedisConfig, _: ConnectionInfo) -> Result<redis::RedisResult<Client>> {
    Err(error(
        ErrorKind::Unsupported,
        "this build speaks no TLS; build lock-redis with its feature `tls`",
    ))
}

/// Refuses servers that are too old, read-only, or of another kind than was configured.
async fn check(
    config: &RedisConfig,
    connection: &mut MultiplexedConnection,
    place: &str,
) -> Result<()> {
    let hello: redis::RedisResult<HashMap<String, Value>> =
        redis::cmd("HELLO").query_async(connection).await;
    let hello = match hello {
        Ok(hello) => hello,
        // Before 6.2 it takes an argument.
        Err(failure) if failure.to_string().contains("wrong number of arguments") => {
            return Err(too_old(place, "before 6.2"));
        }
        Err(failure) => return Err(connecting(place, &failure)),
    };
    let text = |name: &str| -> String {
        let value = hello.get(name).cloned().unwrap_or(Value::Nil);
        from_redis_value(value).unwrap_or_default()
    };
    let version = text("version");
    if !is_new_enough(&version) {
        return Err(too_old(place, &version));
    }
    let is_cluster = text("mode") == "cluster";
    match (config.topology(), is_cluster) {
        (Topology::Cluster, false) => {
            return Err(error(
                ErrorKind::InvalidConfig,
                format!("{place} is no node of a cluster; write topology = \"single\""),
            ));
        }
        (Topology::Single | Topology::Sentinel, true) => {
            return Err(error(
                ErrorKind::InvalidConfig,
                format!("{place} is a node of a cluster; write topology = \"cluster\""),
            ));
        }
        _ => {}
    }
    if text("role") == "replica" {
        return Err(replica(place));
    }
    Ok(())
}

/// The server is a replica, which takes no writes.
pub(crate) fn replica(place: &str) -> Error {
    error(
        ErrorKind::Unavailable,
        format!("{place} is a read-only replica; name the master, or let sentinels name it"),
    )
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 2),
        _ => false,
    }
}

async fn uptime(connection: &mut MultiplexedConnection) -> redis::RedisResult<Duration> {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(connection)
        .await?;
    let seconds = info
        .lines()
        .find_map(|line| line.strip_prefix("uptime_in_seconds:")?.trim().parse().ok());
    Ok(Duration::from_secs(seconds.unwrap_or(0)))
}

fn heed(ear: &Ear, push: PushInfo) {
    match push.kind {
        PushKind::Message => {
            let text = push.data.into_iter().nth(1).map(from_redis_value::<String>);
            if let Some(Ok(text)) = text {
                ear(News::Message(text));
            }
        }
        PushKind::Disconnection => ear(News::Broken),
        _ => {}
    }
}

/// The second connection, for servers and proxies without RESP3.
async fn listen(client: &Client, channel: &str, ear: Ear) -> redis::RedisResult<JoinHandle<()>> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(channel).await?;
    Ok(tokio::spawn(async move {
        let mut messages = subscription.into_on_message();
        while let Some(message) = messages.next().await {
            if let Ok(text) = message.get_payload::<String>() {
                ear(News::Message(text));
            }
        }
        ear(News::Broken);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, good) in [
            ("7.0.15", true),
            ("6.2.0", true),
            ("10.1", true),
            ("6.0.16", false),
            ("5.9.9", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }

    #[test]
    fn a_bad_url_is_named_without_its_secrets() {
        let config = RedisConfig::default();
        for url in [
            "",
            "http://u:secret@host",
            "redis://u:secret@",
            "redis://u:secret@host:x",
        ] {
            let error = target(&config, url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(
                !format!("{error} {error:?}").contains("secret"),
                "{error:?}"
            );
        }
    }
}
