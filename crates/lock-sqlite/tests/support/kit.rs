//! The conformance kit: one database, with or without leases.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{Error, ErrorKind, Keepalive, LockBackend, LockKey, Result, block_on};
use lock_sqlite::{SqliteBackend, SqliteConfig};
use lock_testkit::{Fault, Kit};
use rusqlite::Connection;

/// One database; each client opens it anew, as another process would.
#[derive(Debug)]
pub(crate) struct SqliteKit {
    /// Removed with the kit.
    parent: tempfile::TempDir,
    name: &'static str,
    ttl: Option<Duration>,
}

impl SqliteKit {
    pub(crate) fn new(name: &'static str, ttl: Option<Duration>) -> Self {
        let private = std::fs::Permissions::from_mode(0o700);
        let parent = tempfile::Builder::new().permissions(private).tempdir();
        Self {
            parent: parent.expect("a directory for the suite"),
            name,
            ttl,
        }
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("locks/locks.db")
    }

    fn open_at(&self, path: &Path) -> Result<Arc<dyn LockBackend>> {
        let mut config = SqliteConfig::at(path);
        config.ttl = self.ttl;
        let backend: Arc<dyn LockBackend> = Arc::new(SqliteBackend::open(config)?);
        Ok(match self.ttl {
            Some(_) => Arc::new(Keepalive::new(backend)),
            None => backend,
        })
    }

    fn connection(&self) -> Result<Connection> {
        let connection = Connection::open(self.path()).map_err(failed("opening"))?;
        let patience = Duration::from_secs(5);
        connection
            .busy_timeout(patience)
            .map_err(failed("configuring"))?;
        Ok(connection)
    }

    fn execute(&self, statement: &str, key: &LockKey) -> Result<()> {
        let changed = self.connection()?.execute(statement, [key.qualified()]);
        changed.map(drop).map_err(failed("changing rows"))
    }
}

fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::new(ErrorKind::Backend, what).with_source(source)
}

#[async_trait]
impl Kit for SqliteKit {
    fn name(&self) -> &str {
        self.name
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        self.open_at(&self.path())
    }

    fn spec(&self) -> std::result::Result<String, &'static str> {
        let path = self.path();
        Ok(path.to_str().ok_or("its path is no UTF-8")?.to_owned())
    }

    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>> {
        self.open_at(Path::new(spec))
    }

    /// What stays is a row for each key that was used, until it is swept. Left over is what a sweep,
    /// which only takes what is idle or belongs to the dead, leaves.
    async fn stored(&self) -> Result<Vec<String>> {
        let sweeper = SqliteBackend::open(SqliteConfig::at(self.path()))?;
        block_on(sweeper.sweep())?;
        let left =
            "SELECT 'key ' || name FROM lock_key UNION ALL SELECT 'party ' || key FROM lock_party";
        let connection = self.connection()?;
        let mut rows = connection.prepare(left).map_err(failed("reading rows"))?;
        let rows = rows.query_map([], |row| row.get(0));
        let rows = rows.map_err(failed("reading rows"))?;
        rows.collect::<rusqlite::Result<_>>()
            .map_err(failed("reading rows"))
    }

    fn lacks(&self, fault: Fault) -> Option<&'static str> {
        match fault {
            Fault::DeleteRecord => None,
            Fault::ExpireLease if self.ttl.is_some() => None,
            Fault::ExpireLease => Some("there is no lease"),
            _ => Some("there is no server and no connection"),
        }
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        match fault {
            Fault::DeleteRecord => {
                let vacate = "UPDATE lock_key SET session = NULL, attempt = NULL WHERE name = ?1";
                self.execute(vacate, key)
            }
            Fault::ExpireLease => {
                self.execute("UPDATE lock_key SET expires = 1 WHERE name = ?1", key)?;
                let parties = "UPDATE lock_party SET expires = 1 WHERE key = ?1 AND NOT waiting";
                self.execute(parties, key)
            }
            _ => Err(Error::unsupported("sqlite", fault)),
        }
    }

    fn short_ttl(&self) -> Duration {
        Duration::from_millis(1500)
    }
}
