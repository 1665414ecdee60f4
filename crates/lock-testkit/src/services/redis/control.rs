//! Looking at a server and breaking it through its own commands.

use std::time::Duration;

use redis::{Client, Cmd, Connection, FromRedisValue};

use super::RedisServer;
use crate::services::{PATIENCE, eventually};
use crate::{Failure, Outcome};

/// What a server has used since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Commands, those inside scripts included.
    pub commands: u64,
    /// CPU time of its main thread.
    pub cpu: Duration,
    /// Clients that are connected, the one that asks included.
    pub clients: u64,
    /// Bytes of memory in use now.
    pub memory: u64,
}

impl RedisServer {
    /// A connection of the default user over the unix socket, past every proxy.
    ///
    /// # Errors
    /// When it does not answer.
    ///
    /// # Blocking
    /// Until it answers, at most 20 s.
    pub fn connect(&self) -> Outcome<Connection> {
        let client = Client::open(self.socket_url())?;
        let mut connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        if let Some(password) = &self.options.password {
            Cmd::new()
                .arg("AUTH")
                .arg(password)
                .query::<()>(&mut connection)?;
        }
        Ok(connection)
    }

    /// Runs a command, whose words are separated by spaces, on a connection of its own.
    ///
    /// # Errors
    /// When the server does not answer, or answers with an error.
    ///
    /// # Blocking
    /// Until it answers, at most 20 s.
    pub fn query<T: FromRedisValue>(&self, line: &str) -> Outcome<T> {
        let mut command = Cmd::new();
        for word in line.split_whitespace() {
            command.arg(word);
        }
        let answer = command.query(&mut self.connect()?);
        answer.map_err(|error| Failure::new(format!("`{line}`: {error}")))
    }

    /// Closes the connections of all clients, subscribers included.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn disconnect_clients(&self) -> Outcome {
        self.query::<()>("CLIENT KILL TYPE pubsub")?;
        self.query::<()>("CLIENT KILL TYPE normal SKIPME yes")
    }

    /// Makes it forget every script.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn forget_scripts(&self) -> Outcome {
        self.query::<()>("SCRIPT FLUSH")
    }

    /// The names of all keys.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn keys(&self) -> Outcome<Vec<String>> {
        self.query("KEYS *")
    }

    /// What it has used.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn usage(&self) -> Outcome<Usage> {
        let report = self.query::<String>("INFO everything")?;
        let seconds = |name| -> Outcome<Duration> {
            Ok(Duration::from_secs_f64(field(&report, name)?.parse()?))
        };
        Ok(Usage {
            commands: field(&report, "total_commands_processed")?.parse()?,
            cpu: seconds("used_cpu_user_main_thread")? + seconds("used_cpu_sys_main_thread")?,
            clients: field(&report, "connected_clients")?.parse()?,
            memory: field(&report, "used_memory")?.parse()?,
        })
    }

    /// One field of `INFO`.
    ///
    /// # Errors
    /// As [`query`](Self::query), and when there is no such field.
    pub fn info(&self, name: &str) -> Outcome<String> {
        let report = self.query::<String>("INFO everything")?;
        field(&report, name).map(str::to_owned)
    }

    /// Makes it a replica of another server, and waits until it has the data.
    ///
    /// # Errors
    /// When it does not become one.
    ///
    /// # Blocking
    /// Until it is in step, some 100 ms.
    pub fn replicate(&self, port: u16) -> Outcome {
        self.query::<()>(&format!("REPLICAOF 127.0.0.1 {port}"))?;
        eventually("replica in step with its master", || {
            Ok((self.info("master_link_status")? == "up").then_some(()))
        })
    }

    /// Makes a replica a master.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn promote(&self) -> Outcome {
        self.query("REPLICAOF NO ONE")
    }

    /// Whether it is up; one that loads its data is not yet.
    pub(super) fn answers(&self) -> bool {
        let Ok(mut connection) = self.connect() else {
            return false;
        };
        Cmd::new().arg("PING").query::<()>(&mut connection).is_ok()
    }
}

fn field<'a>(report: &'a str, name: &str) -> Outcome<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    let missing = || Failure::new(format!("INFO has no `{name}`"));
    report
        .lines()
        .find_map(value)
        .map(str::trim)
        .ok_or_else(missing)
}
