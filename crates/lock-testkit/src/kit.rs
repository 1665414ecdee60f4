//! What the suite takes from a backend.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::{LockBackend, LockKey, Result};

/// What the suite takes from a backend: clients of one store, a look at what is stored, and faults.
///
/// Clients come as users get them, so around a backend with leases goes
/// [`Keepalive`](lock_core::Keepalive). Trials run in parallel, each in a namespace of its own; those
/// that inflict a fault on everybody run alone.
#[async_trait]
pub trait Kit: Debug + Send + Sync + 'static {
    /// What the report calls the backend.
    fn name(&self) -> &str;

    /// A new client, independent of the others, of the one store of this kit. For a backend inside
    /// the process: another handle to the same table.
    ///
    /// # Errors
    /// When the store cannot be opened.
    fn client(&self) -> Result<Arc<dyn LockBackend>>;

    /// A client that can be closed without ending other clients. Default: [`client`](Self::client);
    /// a backend whose handles share one table gives one with a table of its own.
    ///
    /// # Errors
    /// When the store cannot be opened.
    fn closable_client(&self) -> Result<Arc<dyn LockBackend>> {
        self.client()
    }

    /// What a second process needs to open the same store, as one string.
    ///
    /// # Errors
    /// Why no second process can.
    fn spec(&self) -> std::result::Result<String, &'static str>;

    /// Opens the store of [`spec`](Self::spec), in a second process.
    ///
    /// # Errors
    /// When the store cannot be opened.
    fn open(&self, spec: &str) -> Result<Arc<dyn LockBackend>>;

    /// What is left in the store, beyond the residue that the backend declares and bounds. Must be
    /// empty when nothing is held and nobody waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn stored(&self) -> Result<Vec<String>>;

    /// Why this fault cannot be inflicted here; `None` when it can.
    ///
    /// The suite insists on the faults that a backend's capabilities expose it to, see [`Fault`].
    fn lacks(&self, fault: Fault) -> Option<&'static str>;

    /// Inflicts a fault. `key` says on whose holders, for faults of one key.
    ///
    /// # Errors
    /// When the fault could not be inflicted: the trial then fails.
    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()>;

    /// The lease life that trials ask for: short, but safely renewable on a loaded machine. Default:
    /// 2 s. Not used where grants live by the process.
    fn short_ttl(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// Makes the store look as it does while the previous released version holds `key`, for as long
    /// as the returned value lives. Default: `None`, there is no previous version.
    fn previous_release(&self, key: &LockKey) -> Option<Result<Box<dyn Send>>> {
        let _ = key;
        None
    }
}

/// Something that goes wrong outside the client.
///
/// A backend with leases must offer [`ExpireLease`](Self::ExpireLease). One whose scope is the
/// network must offer all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The store ends the lease of the key's holders before its time, without telling them.
    ExpireLease,
    /// Somebody deletes the record, file or row of the key's holders.
    DeleteRecord,
    /// Every connection to the server is cut once.
    Disconnect,
    /// The server is restarted with its data.
    Restart,
    /// The server is restarted without its data.
    RestartEmpty,
    /// The server accepts and never answers, until [`Resume`](Self::Resume).
    Stall,
    /// The end of [`Stall`](Self::Stall).
    Resume,
}

impl Fault {
    /// Whether it reaches more than one key, so that the trial must run alone.
    pub(crate) fn disturbs_others(self) -> bool {
        !matches!(self, Self::ExpireLease | Self::DeleteRecord)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExpireLease => "ending a lease from outside",
            Self::DeleteRecord => "deleting the record of a holder",
            Self::Disconnect => "cutting connections",
            Self::Restart => "restarting the server with its data",
            Self::RestartEmpty => "restarting the server without its data",
            Self::Stall => "a server that never answers",
            Self::Resume => "a server that answers again",
        })
    }
}
