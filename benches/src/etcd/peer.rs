//! What ours is measured against: a raw put, the server's Lock service, and the recipe of the
//! reference clients, in which each waiter watches its predecessor.

use anyhow::{Context, Result, bail};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{IntoStreamingRequest, Request};
use tonic_prost::ProstCodec;

use super::wire::{
    By, Delete, Done, Lease, Leased, Lock, Locked, Order, Put, Range, Ranged, Revoke, Step,
    Transaction, Watch, WatchKey, Watched, step,
};

const LEASE_SECONDS: i64 = 60;

/// A connection of its own to one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    grpc: Grpc<Channel>,
}

impl Peer {
    pub(crate) async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Channel::from_shared(endpoint.to_owned())?.connect().await?;
        Ok(Self {
            grpc: Grpc::new(channel),
        })
    }

    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let put = Put {
            key: key.to_vec(),
            value: value.to_vec(),
            lease: 0,
        };
        let _: Done = self.call("/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }

    /// Acquires and releases through the server's Lock service with a lease made for it, which is
    /// how its waiters can be told apart.
    pub(crate) async fn lock_service_pair(&mut self, name: &[u8]) -> Result<()> {
        let lease = self.lease().await?;
        let lock = Lock {
            name: name.to_vec(),
            lease,
        };
        let locked: Locked = self.call("/v3lockpb.Lock/Lock", lock).await?;
        let unlock = Delete { key: locked.key };
        let _: Done = self.call("/v3lockpb.Lock/Unlock", unlock).await?;
        self.revoke(lease).await
    }

    /// Ends a lease, with all that stands under it.
    pub(crate) async fn revoke(&mut self, lease: i64) -> Result<()> {
        let revoke = Revoke { id: lease };
        let _: Done = self.call("/etcdserverpb.Lease/LeaseRevoke", revoke).await?;
        Ok(())
    }

    /// A lease that is not renewed: longer than any section.
    pub(crate) async fn lease(&mut self) -> Result<i64> {
        let lease = Lease {
            seconds: LEASE_SECONDS,
        };
        let leased: Leased = self.call("/etcdserverpb.Lease/LeaseGrant", lease).await?;
        Ok(leased.id)
    }

    /// Queues below `prefix` and waits until everybody before it has left, watching the last of
    /// them, as the mutex of the reference client does. Returns the key to delete.
    pub(crate) async fn recipe_acquire(&mut self, prefix: &str, lease: i64) -> Result<Vec<u8>> {
        let mine = format!("{prefix}/{lease:x}").into_bytes();
        let put = Put {
            key: mine.clone(),
            value: Vec::new(),
            lease,
        };
        let owner = Range {
            limit: 1,
            order: Order::Ascending.into(),
            by: By::Created.into(),
            ..below(prefix)
        };
        let of = [step::Of::Put(put), step::Of::Range(owner)];
        let transaction = Transaction {
            success: of.map(|of| Step { of: Some(of) }).to_vec(),
        };
        let done: Done = self.call("/etcdserverpb.KV/Txn", transaction).await?;
        let revision = done.header.context("an answer without a header")?.revision;
        loop {
            let before = Range {
                limit: 1,
                order: Order::Descending.into(),
                by: By::Created.into(),
                max_create_revision: revision - 1,
                ..below(prefix)
            };
            let ranged: Ranged = self.call("/etcdserverpb.KV/Range", before).await?;
            let Some(last) = ranged.found.first() else {
                return Ok(mine);
            };
            let now = ranged
                .header
                .context("an answer without a header")?
                .revision;
            self.wait_for_deletion(&last.key, now).await?;
        }
    }

    pub(crate) async fn recipe_release(&mut self, key: Vec<u8>) -> Result<()> {
        let _: Done = self
            .call("/etcdserverpb.KV/DeleteRange", Delete { key })
            .await?;
        Ok(())
    }

    async fn wait_for_deletion(&mut self, key: &[u8], start_revision: i64) -> Result<()> {
        let watch = Watch {
            create: Some(WatchKey {
                key: key.to_vec(),
                start_revision,
            }),
        };
        self.grpc.ready().await?;
        // The stream of requests stays open, or the server would end the watch.
        let requests =
            tokio_stream::StreamExt::chain(tokio_stream::iter([watch]), tokio_stream::pending());
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<Watch, Watched>::default();
        let request = requests.into_streaming_request();
        let mut events = self
            .grpc
            .streaming(request, path, codec)
            .await?
            .into_inner();
        while let Some(watched) = events.message().await? {
            if watched.events.iter().any(|event| event.kind == 1) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    }

    async fn call<Q, A>(&mut self, path: &'static str, question: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await?;
        let codec = ProstCodec::default();
        let path = PathAndQuery::from_static(path);
        let answer = self.grpc.unary(Request::new(question), path, codec).await;
        Ok(answer.with_context(|| "asking the server")?.into_inner())
    }
}

/// Every key that starts with `prefix/`.
fn below(prefix: &str) -> Range {
    Range {
        key: format!("{prefix}/").into_bytes(),
        // The character after the slash.
        range_end: format!("{prefix}0").into_bytes(),
        ..Range::default()
    }
}
