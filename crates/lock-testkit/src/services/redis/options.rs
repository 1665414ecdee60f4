//! What a server is started with.

use std::path::Path;

use crate::services::Certificates;

/// What a server is started with. Default: no password, no TLS, nothing kept over a crash.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    pub(super) password: Option<String>,
    pub(super) tls: bool,
    pub(super) sentinel: bool,
    client_certificates: bool,
    append_only: bool,
    cluster: bool,
    lines: Vec<String>,
}

impl RedisOptions {
    /// The password of the default user.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// A user by an ACL rule, such as `worker on >secret ~lock:* +get`.
    #[must_use]
    pub fn with_user(self, rule: &str) -> Self {
        self.with_line(format!("user {rule}"))
    }

    /// A TLS port beside the plain one, with certificates made at the start.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A TLS port that asks clients for a certificate.
    #[must_use]
    pub fn with_client_certificates(mut self) -> Self {
        self.client_certificates = true;
        self.with_tls()
    }

    /// Keeps every write over a crash.
    #[must_use]
    pub fn with_append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// A line of the configuration file.
    #[must_use]
    pub fn with_line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    pub(super) fn with_cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    pub(super) fn with_sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    pub(super) fn settings(
        &self,
        directory: &Path,
        port: u16,
        bus: u16,
        tls: Option<(u16, &Certificates)>,
    ) -> String {
        let directory = directory.display();
        let mut lines = vec![
            format!("bind 127.0.0.1\nport {port}\ndir {directory}"),
            format!("unixsocket {directory}/socket\nunixsocketperm 700"),
            format!("logfile {directory}/log\nprotected-mode no"),
        ];
        if !self.sentinel {
            // Full synchronisations start at once, so that replicas are there in moments.
            lines.push("save \"\"\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0".to_owned());
        }
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}\nmasterauth {password}"));
        }
        if let Some((port, certificates)) = tls {
            let (certificate, key) = certificates.server();
            let ask = if self.client_certificates {
                "yes"
            } else {
                "optional"
            };
            lines.extend([
                format!("tls-port {port}\ntls-auth-clients {ask}"),
                format!("tls-cert-file {}", certificate.display()),
                format!("tls-key-file {}", key.display()),
                format!("tls-ca-cert-file {}", certificates.authority().display()),
            ]);
        }
        if self.append_only {
            lines.push("appendonly yes\nappendfsync always".to_owned());
        }
        if self.cluster {
            lines.push(format!(
                "cluster-enabled yes\ncluster-node-timeout 2000\ncluster-port {bus}"
            ));
        }
        lines.extend(self.lines.iter().cloned());
        lines.push(String::new());
        lines.join("\n")
    }
}
