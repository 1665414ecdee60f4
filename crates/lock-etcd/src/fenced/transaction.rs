//! The transaction itself.

use lock_core::{Error, ErrorKind, FencingToken, Result, runtime};

use super::{Condition, EtcdEntry, EtcdOutcome, Ownership};
use crate::error::{error, not_held};
use crate::layout;
use crate::wire::{Answered, Compare, Operation, Span, TxnRequest, TxnResponse};

/// A transaction that is carried out only while a lock is held. Build it up, then
/// [`commit`](Self::commit) it.
///
/// Two things are asked in the same atomic step: that the record which proves the lock is still
/// there, and that nobody with a later fencing token has written under this lock. The second counts
/// also where one grant of the servers serves several holders of one process after each other.
#[derive(Debug)]
#[must_use = "a transaction does nothing unless it is committed"]
pub struct FencedTransaction<'a> {
    ownership: &'a Ownership,
    token: FencingToken,
    conditions: Vec<Condition>,
    operations: Vec<Operation>,
    reads: Vec<Vec<u8>>,
}

impl<'a> FencedTransaction<'a> {
    pub(super) fn new(ownership: &'a Ownership, token: FencingToken) -> Self {
        Self {
            ownership,
            token,
            conditions: Vec::new(),
            operations: Vec::new(),
            reads: Vec::new(),
        }
    }

    /// Changes nothing unless this holds as well.
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Writes a key. A key can be written once in a transaction.
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.operations
            .push(Operation::put(key.into(), value.into(), 0));
        self
    }

    /// Deletes a key, if it is there.
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.operations.push(Operation::delete(key.into()));
        self
    }

    /// Reads a key as it is after the writes.
    pub fn read(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.reads.push(key.into());
        self
    }

    /// Carries it out.
    ///
    /// # Errors
    /// `Lost` when the lock is no longer held, or was handed on: nothing was changed.
    /// `Indeterminate` when the reply did not come, `Unavailable` when nothing was sent.
    ///
    /// # Cancel safety
    /// A dropped commit may or may not be carried out, like one without a reply.
    pub async fn commit(self) -> Result<EtcdOutcome> {
        let place = self.ownership.place.clone();
        if self.ownership.is_inherited() {
            return Err(not_held(&place.key));
        }
        let client = self.ownership.client.upgrade();
        let client = client.ok_or_else(|| Error::closed(crate::error::NAME))?;
        let register = layout::fence(&client.config().prefix, &place.key);
        // The register is there after the first transaction under this lock.
        for known in [true, false] {
            let txn = self.build(&register, known);
            let cluster = std::sync::Arc::clone(&client.cluster);
            let sent = runtime::handle().spawn(async move { cluster.txn(txn).await });
            let answer = sent
                .await
                .map_err(|source| error(ErrorKind::Indeterminate, source.to_string()))?
                .map_err(|failure| failure.into_outcome().with_key(&place.key))?;
            if answer.succeeded {
                return Ok(outcome(answer));
            }
            // The proof failed, or the register is not as it was taken to be.
            let ranges = answer.into_ranges();
            let found = |at: usize| ranges.get(at).and_then(|range| range.kvs.first());
            let stand = self.ownership.stand();
            let held = found(0).is_some_and(|entry| entry.create_revision == stand.created);
            if !held {
                return Err(not_held(&place.key));
            }
            if found(1).is_some() {
                return Err(error(
                    ErrorKind::Lost,
                    "a later holder has written under this lock",
                )
                .with_key(&place.key));
            }
        }
        Err(error(
            ErrorKind::Unavailable,
            "the fencing register was deleted meanwhile; try again",
        )
        .with_key(&place.key))
    }

    fn build(&self, register: &[u8], known: bool) -> TxnRequest {
        let stand = self.ownership.stand();
        let holder = self.ownership.place.holder(stand.mode, stand.attempt);
        let mut inner = TxnRequest::default();
        inner
            .compare
            .extend(self.conditions.iter().map(Condition::to_compare));
        inner.success.clone_from(&self.operations);
        let reads = self.reads.iter().cloned().map(Span::key);
        inner
            .success
            .extend(reads.map(|span| Operation::read(&span)));
        let mut txn = TxnRequest::default();
        txn.compare
            .push(Compare::created_at(holder.clone(), stand.created));
        txn.compare.push(if known {
            Compare::value_below(register.to_vec(), text(self.token, 1))
        } else {
            Compare::absent(register.to_vec())
        });
        txn.success
            .push(Operation::put(register.to_vec(), text(self.token, 0), 0));
        txn.success.push(Operation::txn(inner));
        txn.failure.push(Operation::read(&Span::key(holder)));
        txn.failure
            .push(Operation::read(&Span::key(register.to_vec())));
        txn
    }
}

fn outcome(answer: TxnResponse) -> EtcdOutcome {
    if !answer.inner_succeeded() {
        return EtcdOutcome::ConditionFailed;
    }
    let revision = answer.revision();
    let read = answer.into_ranges().into_iter();
    let read = read.map(|range| range.kvs.into_iter().next().map(EtcdEntry::from));
    EtcdOutcome::Committed {
        revision,
        read: read.collect(),
    }
}

/// A token as a text that sorts as tokens do; `more` raises it.
fn text(token: FencingToken, more: u64) -> Vec<u8> {
    format!("{:08x}{:016x}", token.epoch(), token.number().get() + more).into_bytes()
}
