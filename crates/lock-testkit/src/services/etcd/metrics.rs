//! What a server counts about itself.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::{Failure, Outcome};

const LIMIT: Duration = Duration::from_secs(2);

/// The counters of one server at one moment.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    pub(super) fn read(port: u16) -> Outcome<Self> {
        Ok(Self(fetch(port, "/metrics")?))
    }

    /// Whether the server can commit, or could but for a lack of space.
    pub(super) fn is_healthy(port: u16) -> bool {
        let health = fetch(port, "/health?exclude=NOSPACE");
        health.is_ok_and(|body| body.contains("\"health\":\"true\""))
    }

    /// The value of a metric, summed over its labels; zero for one that was never counted.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// The same, only where the labels contain `label`, such as `grpc_method="Txn"`.
    #[must_use]
    pub fn sum_where(&self, name: &str, label: &str) -> f64 {
        let labelled = self
            .samples(name)
            .filter(|(labels, _)| labels.contains(label));
        labelled.map(|(_, value)| value).sum()
    }

    /// How many entries the cluster has committed to its log, as far as this server knows.
    #[must_use]
    pub fn raft_entries(&self) -> f64 {
        self.sum("etcd_server_proposals_committed_total")
    }

    /// How many messages went to and came from clients.
    #[must_use]
    pub fn messages(&self) -> f64 {
        self.sum("grpc_server_msg_sent_total") + self.sum("grpc_server_msg_received_total")
    }

    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole_name = labels.is_empty() || labels.starts_with('{');
            Some((labels, value.parse().ok()?)).filter(|_| whole_name)
        })
    }
}

fn fetch(port: u16, path: &str) -> Outcome<String> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // Without keep-alive and chunks, so that the body is what follows the empty line.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Failure::new(format!("`{path}` was answered with {answer:?}")))?;
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_their_whole_name() {
        let metrics = Metrics(
            "# HELP sent help\nsent{method=\"Txn\"} 2\nsent{method=\"Put\"} 3\nsent_total 40\nplain 1e+06\n"
                .to_owned(),
        );
        assert_eq!(metrics.sum("sent"), 5.0);
        assert_eq!(metrics.sum_where("sent", "method=\"Txn\""), 2.0);
        assert_eq!(metrics.sum("plain"), 1e6);
        assert_eq!(metrics.sum("never"), 0.0);
    }
}
