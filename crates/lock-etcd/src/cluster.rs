//! The way to the servers: one connection at a time, to one that answers, the leader if it does.

mod endpoint;
mod revisions;
mod streams;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::clock::Instant;
use lock_core::{ErrorKind, Result};
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{IntoRequest, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::config::EtcdConfig;
use crate::error::{Failure, Reason, error};
use crate::layout;
use crate::wire::{
    Answered, AuthenticateRequest, AuthenticateResponse, Compare, DeleteRequest, DeleteResponse,
    KeepAliveRequest, KeepAliveResponse, Operation, RangeRequest, RangeResponse, Span,
    StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use endpoint::Endpoint;
pub(crate) use revisions::Revisions;
use streams::{One, Orders};

/// Larger than any answer that the servers give with their usual settings.
const LARGEST_ANSWER: usize = 64 << 20;

/// One cluster. Requests go to one server until it fails, then to the next.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: EtcdConfig,
    endpoints: Vec<Endpoint>,
    /// Which server is in use.
    current: AtomicUsize,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    pub(crate) revisions: Revisions,
    /// Counts the moves from one server to another, so that streams move along.
    moves: watch::Sender<u64>,
}

/// A connection to one of the servers.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    at: usize,
    channel: Channel,
}

impl Cluster {
    pub(crate) fn new(config: &EtcdConfig) -> Result<Self> {
        config.check()?;
        let endpoints: Result<Vec<_>> = config
            .endpoints
            .iter()
            .map(|address| Endpoint::new(address, config))
            .collect();
        let mut start = [0; 8];
        // Without randomness everybody starts at the first one, which is no harm.
        let _ = getrandom::fill(&mut start);
        let endpoints = endpoints?;
        let start = usize::from_ne_bytes(start) % endpoints.len();
        Ok(Self {
            config: config.clone(),
            current: AtomicUsize::new(start),
            endpoints,
            token: Mutex::new(None),
            revisions: Revisions::default(),
            moves: watch::Sender::new(0),
        })
    }

    /// Changes whenever requests go to another server than before, or a connection is given up.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// A linearizable read.
    pub(crate) async fn range(&self, span: &Span) -> Result<RangeResponse, Failure> {
        self.read("/etcdserverpb.KV/Range", span.request()).await
    }

    /// The same, a page of at most `limit` keys.
    pub(crate) async fn page(&self, span: &Span, limit: i64) -> Result<RangeResponse, Failure> {
        let request = RangeRequest {
            limit,
            ..span.request()
        };
        self.read("/etcdserverpb.KV/Range", request).await
    }

    /// Several linearizable reads at one revision.
    pub(crate) async fn ranges(&self, spans: &[Span]) -> Result<Vec<RangeResponse>, Failure> {
        let success = spans.iter().map(Operation::read).collect();
        let txn = TxnRequest {
            success,
            ..TxnRequest::default()
        };
        let answer: TxnResponse = self.read("/etcdserverpb.KV/Txn", txn).await?;
        Ok(answer.into_ranges())
    }

    async fn read<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Answered + Default + 'static,
    {
        let seen = self.revisions.highest();
        let answer: A = self.call(path, request).await?;
        // A linearizable read that is older than what was seen before comes from a server with a
        // known fault, or from another store.
        if answer.revision() < seen && !self.is_another_store().await? {
            return Err(Failure::unanswered("a server answered with old data"));
        }
        self.revisions.saw(answer.revision());
        Ok(answer)
    }

    /// Whether the store's revision went back, as only a write can tell for sure.
    async fn is_another_store(&self) -> Result<bool, Failure> {
        if !self.revisions.went_back() {
            // Deletes a key that is there and not there: it goes through consensus and does nothing.
            let key = layout::gate(&self.config.prefix, 0);
            let mut nothing = TxnRequest::default();
            nothing.compare.push(Compare::present(key.clone()));
            nothing.compare.push(Compare::absent(key.clone()));
            nothing.success.push(Operation::delete(key));
            let told = self.txn(nothing).await;
            if !self.revisions.went_back() {
                told?;
            }
        }
        Ok(self.revisions.went_back())
    }

    pub(crate) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        self.write("/etcdserverpb.KV/Txn", txn).await
    }

    /// Deletes one key. Returns whether it was there.
    pub(crate) async fn delete(&self, key: Vec<u8>) -> Result<bool, Failure> {
        let request = DeleteRequest {
            key,
            range_end: Vec::new(),
        };
        let answer: DeleteResponse = self.write("/etcdserverpb.KV/DeleteRange", request).await?;
        Ok(answer.deleted > 0)
    }

    /// A request that goes through consensus, so that its answer is never older than an earlier one.
    pub(crate) async fn write<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Answered + Default + 'static,
    {
        self.revisions.check()?;
        let seen = self.revisions.highest();
        let answer: A = self.call(path, request).await?;
        self.revisions.wrote(seen, answer.revision())?;
        Ok(answer)
    }

    /// What the server in use says about itself.
    pub(crate) async fn status(&self) -> Result<StatusResponse, Failure> {
        self.status_of(&self.route().await?).await
    }

    async fn status_of(&self, route: &Route) -> Result<StatusResponse, Failure> {
        let path = "/etcdserverpb.Maintenance/Status";
        self.call_on(route, path, StatusRequest {}).await
    }

    /// Moves to the leader, if another server is in use: that one would pass every write on to the
    /// leader, and hear of it later.
    pub(crate) async fn seek_leader(&self) -> Result<(), Failure> {
        if self.endpoints.len() == 1 {
            return Ok(());
        }
        let route = self.route().await?;
        let leader = match self.status_of(&route).await? {
            status if status.is_leader() || status.leader == 0 => return Ok(()),
            status => status.leader,
        };
        for at in (0..self.endpoints.len()).filter(|at| *at != route.at) {
            if self.endpoints[at].is_avoided(Instant::now()) {
                continue;
            }
            // Another one may still be the leader if this one does not answer.
            let Ok(channel) = self.endpoints[at].channel().await else {
                continue;
            };
            let route = Route { at, channel };
            let status = self.status_of(&route).await;
            if status.is_ok_and(|status| status.is_leader() && status.leader == leader) {
                self.move_to(at);
                break;
            }
        }
        Ok(())
    }

    /// Renews a lease once, within `limit`.
    pub(crate) async fn keep_alive(
        &self,
        lease: i64,
        limit: Duration,
    ) -> Result<KeepAliveResponse, Failure> {
        let sent = Instant::now();
        let route = tokio::time::timeout(limit, self.route())
            .await
            .map_err(|_| Failure::unsent("no server takes a connection in time"))??;
        let request = KeepAliveRequest { id: lease };
        let exchange = async {
            let stream = One(Some(request));
            let path = "/etcdserverpb.Lease/LeaseKeepAlive";
            let mut answers: Streaming<KeepAliveResponse> =
                self.open_stream(&route, path, stream).await?;
            let answer = answers.message().await;
            answer
                .map_err(|status| self.failed(&route, &status))?
                .ok_or_else(|| Failure::unanswered("the server ended the renewal"))
        };
        match tokio::time::timeout((sent + limit).remaining(), exchange).await {
            Ok(answer) => answer,
            // As in `wait_for`, but a renewal has to end in time.
            Err(_) if self.endpoints[route.at].heard() > sent => {
                Err(Failure::unanswered("the server is too slow to renew"))
            }
            Err(_) => Err(self.silent(&route, limit)),
        }
    }

    /// Opens a stream of watch events.
    pub(crate) async fn watch(
        &self,
        route: &Route,
        orders: tokio::sync::mpsc::UnboundedReceiver<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        self.open_stream(route, "/etcdserverpb.Watch/Watch", Orders(orders))
            .await
    }

    async fn open_stream<Q, A>(
        &self,
        route: &Route,
        path: &'static str,
        stream: impl tokio_stream::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc(route);
        let ready = grpc.ready().await;
        ready.map_err(|error| self.failed(route, &tonic::Status::from_error(error.into())))?;
        let mut request = Request::new(stream);
        self.sign(request.metadata_mut()).await?;
        let codec = ProstCodec::<Q, A>::default();
        let answers = grpc
            .streaming(request, PathAndQuery::from_static(path), codec)
            .await;
        answers
            .map(tonic::Response::into_inner)
            .map_err(|status| self.failed(route, &status))
    }

    /// A request whose answer says nothing of the store.
    pub(crate) async fn ask<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call(path, request).await
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut tries = self.endpoints.len() + 1;
        loop {
            let failure = match self.call_once(path, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            // Only what was surely not carried out is sent again.
            let elsewhere = matches!(failure.reason, Reason::Endpoint | Reason::Token);
            if failure.in_doubt || !elsewhere || tries == 0 {
                return Err(failure);
            }
            tries -= 1;
        }
    }

    async fn call_once<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let route = self.route().await?;
        let answer = self.call_on(&route, path, request).await?;
        self.endpoints[route.at].hear();
        Ok(answer)
    }

    async fn call_on<Q, A>(
        &self,
        route: &Route,
        path: &'static str,
        request: Q,
    ) -> Result<A, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut request = request.into_request();
        self.sign(request.metadata_mut()).await?;
        let mut grpc = self.grpc(route);
        let limit = self.config.request_timeout;
        match tokio::time::timeout(limit, grpc.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.give_up(route);
                return Err(Failure::unsent(error.to_string()));
            }
            Err(_) => {
                self.give_up(route);
                return Err(Failure::unsent("the connection is stuck"));
            }
        }
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(path), codec);
        match self.wait_for(route, answer).await {
            Some(Ok(answer)) => Ok(answer.into_inner()),
            Some(Err(status)) => Err(self.failed(route, &status)),
            None => Err(self.silent(route, limit)),
        }
    }

    /// Waits for an answer until the server has answered nobody for a while: one that answers others
    /// is slow, and asking it again, or another one, would only be more work for it.
    async fn wait_for<T>(&self, route: &Route, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        let sent = Instant::now();
        let at_most = sent + self.config.patience;
        let mut until = sent + self.config.request_timeout;
        loop {
            if let Ok(answer) = tokio::time::timeout(until.remaining(), &mut answer).await {
                return Some(answer);
            }
            let heard = self.endpoints[route.at].heard() + self.config.request_timeout;
            if heard <= until || at_most.has_passed() {
                return None;
            }
            until = heard;
        }
    }

    fn grpc(&self, route: &Route) -> Grpc<Channel> {
        Grpc::new(route.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// What every request carries: that it wants a server with a leader, and who we are.
    async fn sign(&self, metadata: &mut MetadataMap) -> Result<(), Failure> {
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        let (Some(user), Some(password)) = (&self.config.user, &self.config.password) else {
            return Ok(());
        };
        if let Some(token) = self.kept_token().clone() {
            metadata.insert("token", token);
            return Ok(());
        }
        let request = AuthenticateRequest {
            name: user.clone(),
            password: password.reveal().to_owned(),
        };
        let route = self.route().await?;
        let mut grpc = self.grpc(&route);
        let exchange = async {
            let ready = grpc.ready().await;
            ready.map_err(|error| Failure::unsent(error.to_string()))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Auth/Authenticate");
            let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
            let answer = grpc.unary(request.into_request(), path, codec).await;
            answer.map_err(|status| self.failed(&route, &status))
        };
        let answer = tokio::time::timeout(self.config.request_timeout, exchange).await;
        let answer = answer
            .map_err(|_| self.silent(&route, self.config.request_timeout))?
            .map_err(|mut failure| {
                // What is not known is who we are; the request itself was never sent.
                failure.in_doubt = false;
                failure
            })?;
        let token = MetadataValue::try_from(answer.into_inner().token).map_err(|_| {
            Failure::lasting(error(ErrorKind::Backend, "the server's token is no text"))
        })?;
        metadata.insert("token", token.clone());
        *self.kept_token() = Some(token);
        Ok(())
    }

    fn kept_token(&self) -> std::sync::MutexGuard<'_, Option<MetadataValue<Ascii>>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection in use, or a new one to a server that takes it.
    pub(crate) async fn route(&self) -> Result<Route, Failure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..self.endpoints.len())
            .map(|step| (first + step) % self.endpoints.len())
            .collect();
        let now = Instant::now();
        // Stable: those that failed lately come last, but they come.
        order.sort_by_key(|at| self.endpoints[*at].is_avoided(now));
        let mut failure = None;
        for at in order {
            match self.endpoints[at].channel().await {
                Ok(channel) => {
                    self.move_to(at);
                    return Ok(Route { at, channel });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::unsent("there is no server")))
    }

    fn failed(&self, route: &Route, status: &tonic::Status) -> Failure {
        let failure = Failure::of(status, self.endpoints[route.at].address());
        match failure.reason {
            Reason::Endpoint => self.give_up(route),
            Reason::Token => *self.kept_token() = None,
            Reason::NoLease | Reason::Other => {}
        }
        failure
    }

    fn silent(&self, route: &Route, limit: Duration) -> Failure {
        self.give_up(route);
        let address = self.endpoints[route.at].address();
        Failure::unanswered(format!("{address} did not answer within {limit:?}"))
    }

    fn move_to(&self, at: usize) {
        if self.current.swap(at, Ordering::Relaxed) != at {
            self.moves.send_modify(|count| *count += 1);
        }
    }

    /// Whether requests no longer go this way.
    pub(crate) fn has_left(&self, route: &Route) -> bool {
        let current = self.current.load(Ordering::Relaxed);
        current != route.at || self.endpoints[route.at].is_avoided(Instant::now())
    }

    /// Turns away from a server for a while.
    pub(crate) fn give_up(&self, route: &Route) {
        if self.endpoints[route.at].avoid() {
            self.moves.send_modify(|count| *count += 1);
        }
    }
}

/// Shared by everything that talks to the servers.
pub(crate) type SharedCluster = Arc<Cluster>;
