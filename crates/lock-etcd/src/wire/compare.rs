//! What a transaction may ask about the store before it does anything.

use prost::{Message, Oneof};

use super::Span;

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;

const VERSION: i32 = 0;
const CREATED: i32 = 1;
const MODIFIED: i32 = 2;
const VALUE: i32 = 3;

/// A comparison with one key, or with every key of a range.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "Against", tags = "4, 5, 6, 7")]
    against: Option<Against>,
    #[prost(bytes = "vec", tag = "64")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Against {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    Created(i64),
    #[prost(int64, tag = "6")]
    Modified(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    /// The key is there, and was created at this revision.
    pub(crate) fn created_at(key: Vec<u8>, revision: i64) -> Self {
        Self::key(key, EQUAL, CREATED, Against::Created(revision))
    }

    /// The key was last written at this revision.
    pub(crate) fn modified_at(key: Vec<u8>, revision: i64) -> Self {
        Self::key(key, EQUAL, MODIFIED, Against::Modified(revision))
    }

    pub(crate) fn absent(key: Vec<u8>) -> Self {
        Self::key(key, EQUAL, VERSION, Against::Version(0))
    }

    pub(crate) fn present(key: Vec<u8>) -> Self {
        Self::key(key, GREATER, VERSION, Against::Version(0))
    }

    pub(crate) fn value_is(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self::key(key, EQUAL, VALUE, Against::Value(value))
    }

    /// The key is there, and its value sorts before this one.
    pub(crate) fn value_below(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self::key(key, LESS, VALUE, Against::Value(value))
    }

    /// No key of the range is there: a missing key counts as created at revision 0.
    pub(crate) fn empty(span: &Span) -> Self {
        Self::span(span, EQUAL, CREATED, Against::Created(0))
    }

    /// No key of the range was written after this revision. Says nothing of deletions.
    pub(crate) fn unwritten_since(span: &Span, revision: i64) -> Self {
        Self::span(span, LESS, MODIFIED, Against::Modified(revision + 1))
    }

    fn key(key: Vec<u8>, result: i32, target: i32, against: Against) -> Self {
        Self {
            result,
            target,
            key,
            against: Some(against),
            range_end: Vec::new(),
        }
    }

    fn span(span: &Span, result: i32, target: i32, against: Against) -> Self {
        let range_end = span.end.clone();
        Self {
            range_end,
            ..Self::key(span.start.clone(), result, target, against)
        }
    }
}
