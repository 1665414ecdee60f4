//! The messages of etcd's version 3 API, as far as locks need them.
//!
//! Written by hand from the published field numbers, which never change: so nobody who builds this
//! crate needs a protocol buffer compiler. Fields that are left out are skipped when they arrive.

mod compare;
mod lease;
mod span;
mod watch;

use prost::{Message, Oneof};

pub(crate) use compare::Compare;
pub(crate) use lease::{
    KeepAliveRequest, KeepAliveResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, TimeToLiveRequest, TimeToLiveResponse,
};
pub(crate) use span::Span;
pub(crate) use watch::{
    CancelWatch, CreateWatch, DELETE, Event, NO_PUT, WatchOrder, WatchRequest, WatchResponse,
};

/// Who answered, and at which revision of the store.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "2")]
    pub(crate) member: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// An answer with a header.
pub(crate) trait Answered {
    fn header(&self) -> Option<&Header>;

    /// The revision of the store that the answer speaks of.
    fn revision(&self) -> i64 {
        self.header().map_or(0, |header| header.revision)
    }
}

macro_rules! answered {
    ($($message:ty),*) => {$(
        impl $crate::wire::Answered for $message {
            fn header(&self) -> Option<&$crate::wire::Header> {
                self.header.as_ref()
            }
        }
    )*};
}
pub(crate) use answered;

answered!(
    DeleteResponse,
    RangeResponse,
    TxnResponse,
    StatusResponse,
    AuthenticateResponse
);

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(crate) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(crate) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct DeleteResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    /// How many keys were there.
    #[prost(int64, tag = "2")]
    pub(crate) deleted: i64,
}

/// The answers to puts and deletes within a transaction say nothing that locks need.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Done {}

/// One step of a transaction.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Operation {
    #[prost(oneof = "Request", tags = "1, 2, 3, 4")]
    pub(crate) request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

/// All of `compare` hold: then `success` is done, else `failure`, in one atomic step.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) failure: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(crate) responses: Vec<Outcome>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Outcome {
    #[prost(oneof = "Response", tags = "1, 2, 3, 4")]
    pub(crate) response: Option<Response>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Response {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(Done),
    #[prost(message, tag = "3")]
    Delete(Done),
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    /// The member that leads; 0 if none does.
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

impl StatusResponse {
    /// Whether it is the leader that answered.
    pub(crate) fn is_leader(&self) -> bool {
        self.header
            .is_some_and(|header| header.member == self.leader)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuthenticateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}

impl From<Request> for Operation {
    fn from(request: Request) -> Self {
        Self {
            request: Some(request),
        }
    }
}

impl Operation {
    pub(crate) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> Self {
        Request::Put(PutRequest { key, value, lease }).into()
    }

    pub(crate) fn delete(key: Vec<u8>) -> Self {
        let range_end = Vec::new();
        Request::Delete(DeleteRequest { key, range_end }).into()
    }

    pub(crate) fn read(span: &Span) -> Self {
        Request::Range(span.request()).into()
    }

    pub(crate) fn txn(txn: TxnRequest) -> Self {
        Request::Txn(txn).into()
    }
}

impl TxnResponse {
    /// What the reads of the branch that was taken found, in order; nested transactions included.
    pub(crate) fn into_ranges(self) -> Vec<RangeResponse> {
        let revision = self.revision();
        let mut ranges = Vec::new();
        self.collect_ranges(revision, &mut ranges);
        ranges
    }

    /// The answers within a transaction have no revision of their own.
    fn collect_ranges(self, revision: i64, into: &mut Vec<RangeResponse>) {
        for outcome in self.responses {
            match outcome.response {
                Some(Response::Range(mut range)) => {
                    range.header = Some(Header {
                        revision,
                        ..Header::default()
                    });
                    into.push(range);
                }
                Some(Response::Txn(txn)) => txn.collect_ranges(revision, into),
                _ => {}
            }
        }
    }

    /// Whether the nested transaction of the branch that was taken succeeded.
    pub(crate) fn inner_succeeded(&self) -> bool {
        self.responses
            .iter()
            .any(|outcome| matches!(&outcome.response, Some(Response::Txn(txn)) if txn.succeeded))
    }
}
