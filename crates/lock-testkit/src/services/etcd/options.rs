//! What a cluster is started with.

use std::time::Duration;

/// What a cluster is started with. Default: no users, no TLS, the quota of the server.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    pub(super) tls: bool,
    pub(super) quota: Option<u64>,
    pub(super) root_password: Option<String>,
    pub(super) users: Vec<User>,
    pub(super) election: Duration,
}

/// A user who may read and write below a prefix.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) prefix: String,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            tls: false,
            quota: None,
            root_password: None,
            users: Vec::new(),
            election: Duration::from_millis(500),
        }
    }
}

impl EtcdOptions {
    /// TLS for clients, who must show a certificate of [`Certificates`](crate::services::Certificates).
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// How many bytes the data may take; then the server is out of space.
    #[must_use]
    pub fn with_quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// Turns users on. `root` may do everything.
    #[must_use]
    pub fn with_root_password(mut self, password: &str) -> Self {
        self.root_password = Some(password.to_owned());
        self
    }

    /// A user who may read and write below `prefix`. Needs
    /// [`with_root_password`](Self::with_root_password).
    #[must_use]
    pub fn with_user(mut self, name: &str, password: &str, prefix: &str) -> Self {
        self.users.push(User {
            name: name.to_owned(),
            password: password.to_owned(),
            prefix: prefix.to_owned(),
        });
        self
    }

    /// After how long without a leader a new one is elected. Default: 500 ms. The shortest lease is
    /// half as long again, in whole seconds.
    #[must_use]
    pub fn with_election(mut self, timeout: Duration) -> Self {
        self.election = timeout;
        self
    }
}
