//! The identity of one attempt to acquire.

use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fork::{self, ForkLocal};
use crate::{Error, ErrorKind};

/// Identifies a process, unguessably: 128 random bits, drawn again after a fork.
///
/// In two halves, the upper one first, for a `u128` would pad whatever it is a part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessNonce([u64; 2]);

impl ProcessNonce {
    /// This process's nonce.
    ///
    /// # Panics
    /// When the operating system has no randomness, which leaves no safe way to go on.
    #[must_use]
    pub fn current() -> Self {
        *Self::cell().get_or_init(|| {
            let mut bytes = [0; 16];
            #[expect(clippy::expect_used, reason = "documented under # Panics")]
            getrandom::fill(&mut bytes).expect("the operating system gave no random bytes");
            Self::from_bits(u128::from_ne_bytes(bytes))
        })
    }

    /// Its bits, for a record.
    pub fn to_bits(self) -> u128 {
        let [high, low] = self.0.map(u128::from);
        high << 64 | low
    }

    /// Reads what [`to_bits`](Self::to_bits) gave.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self([(bits >> 64) as u64, bits as u64])
    }

    fn cell() -> &'static ForkLocal<Self> {
        static NONCE: ForkLocal<ProcessNonce> = ForkLocal::new();
        &NONCE
    }
}

impl fmt::Display for ProcessNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.to_bits())
    }
}

impl fmt::Debug for ProcessNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ProcessNonce {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        u128::from_str_radix(text, 16)
            .map(Self::from_bits)
            .map_err(|source| {
                Error::new(ErrorKind::Backend, format!("`{text}` is no process nonce"))
                    .with_source(source)
            })
    }
}

/// Proves to a backend which attempt a command belongs to.
///
/// Every attempt has its own, so that a late renewal or release of an earlier attempt by the same
/// object, thread or task can never touch a later one. It is a process nonce and a counter, written
/// `nonce-counter` in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerToken {
    process: ProcessNonce,
    counter: u64,
}

impl Hash for OwnerToken {
    /// The counter alone, which tells apart almost all attempts of a table.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.counter);
    }
}

impl OwnerToken {
    /// A token that no attempt ever had.
    #[must_use]
    #[inline]
    pub fn mint() -> Self {
        let generation = fork::generation();
        BLOCK.with(|block| {
            let counter = block.next.get();
            if block.generation.get() != generation || counter.is_multiple_of(BLOCK_LEN) {
                return Self::mint_from_new_block(block, generation);
            }
            block.next.set(counter + 1);
            Self {
                process: block.process.get(),
                counter,
            }
        })
    }

    #[cold]
    fn mint_from_new_block(block: &Block, generation: u64) -> Self {
        let process = ProcessNonce::current();
        let counter = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed) * BLOCK_LEN;
        block.generation.set(generation);
        block.process.set(process);
        block.next.set(counter + 1);
        Self { process, counter }
    }

    /// The token with these parts, from a record.
    #[must_use]
    pub fn from_parts(process: ProcessNonce, counter: u64) -> Self {
        Self { process, counter }
    }

    /// The process that made the attempt.
    pub fn process(self) -> ProcessNonce {
        self.process
    }

    /// The attempt within its process.
    pub fn counter(self) -> u64 {
        self.counter
    }
}

/// Threads draw counters in blocks: a counter shared by all of them would cost more than the lock.
const BLOCK_LEN: u64 = 1 << 16;
static NEXT_BLOCK: AtomicU64 = AtomicU64::new(0);

/// The counters that a thread has drawn.
struct Block {
    generation: Cell<u64>,
    process: Cell<ProcessNonce>,
    /// At a block's start it means: draw a new block.
    next: Cell<u64>,
}

thread_local! {
    static BLOCK: Block = const {
        Block {
            generation: Cell::new(0),
            process: Cell::new(ProcessNonce([0; 2])),
            next: Cell::new(0),
        }
    };
}

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.process, self.counter)
    }
}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for OwnerToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::new(ErrorKind::Backend, format!("`{text}` is no owner token"));
        let (process, counter) = text.split_once('-').ok_or_else(malformed)?;
        let counter = u64::from_str_radix(counter, 16).map_err(|_| malformed())?;
        Ok(Self {
            process: process.parse()?,
            counter,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_are_distinct_over_threads_and_blocks() {
        let mint = || {
            (0..BLOCK_LEN + 10)
                .map(|_| OwnerToken::mint())
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(mint)).collect();
        let mut seen = HashSet::new();
        for thread in threads {
            for token in thread.join().unwrap() {
                assert!(seen.insert(token), "{token} was minted twice");
            }
        }
    }

    #[test]
    fn a_token_reads_back() {
        let token = OwnerToken::mint();
        assert_eq!(token.to_string().parse::<OwnerToken>().unwrap(), token);
        let process = ProcessNonce::from_bits(token.process().to_bits());
        assert_eq!(OwnerToken::from_parts(process, token.counter()), token);
    }
}
