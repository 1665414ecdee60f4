//! What stands in a lock file: the fencing counter, the discipline, who holds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lock_core::{ErrorKind, LockKey, Mode, PartyRecord, Result};

use crate::error::{error, failed, foreign_file};

mod body;

pub(crate) use body::{Body, Holder};

/// The state of a key, as its file keeps it.
///
/// The file has two places for it, written in turn; each has its own checksums. A write that was
/// cut short, or that a reader meets half-way, leaves the other place, which is one write older.
///
/// Written only under the exclusive kernel lock of the file; read by anyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Counts the writes: the place with the higher one is valid.
    pub(crate) sequence: u64,
    /// The base of the last fencing number.
    pub(crate) base: u64,
    /// What the holders of a shared kernel lock are. Binds while there are any.
    pub(crate) discipline: Discipline,
}

/// What the holders of a shared kernel lock are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Discipline {
    #[default]
    Unset,
    Shared,
    /// Holders of permits of this maximum.
    Permits(u32),
}

impl Discipline {
    /// The discipline of a mode.
    pub(crate) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Unset,
            Mode::Shared => Self::Shared,
            Mode::Permit(permits) => Self::Permits(permits.of()),
        }
    }

    /// A mode of the discipline, for messages.
    pub(crate) fn example(self) -> Option<Mode> {
        match self {
            Self::Unset => None,
            Self::Shared => Some(Mode::Shared),
            Self::Permits(of) => Mode::permit(of).ok(),
        }
    }
}

const MAGIC: [u8; 8] = *b"lockfile";
const VERSION: u32 = 1;
const HEAD_LEN: usize = 64;
/// The distance of the two places; also the most that one may take.
const PLACE_LEN: u64 = 8192;
const MAX_BODY_LEN: usize = PLACE_LEN as usize - HEAD_LEN;

/// Reads the valid head; the default one from a file that was never written.
pub(crate) fn read_head(file: &File, path: &Path) -> Result<Head> {
    Ok(newest(file, path)?.map_or_else(Head::default, |place| place.head))
}

/// Reads head and body. The body is `None` when nothing was written yet, or when every look met a
/// write half-way.
pub(crate) fn read(file: &File, path: &Path) -> Result<Option<(Head, Option<Body>)>> {
    const LOOKS: usize = 8;
    let mut seen = None;
    for _ in 0..LOOKS {
        let Some(place) = newest(file, path)? else {
            return Ok(None);
        };
        let mut bytes = vec![0; place.body_len];
        let at = place_of(place.head.sequence) + HEAD_LEN as u64;
        let whole = file.read_exact_at(&mut bytes, at).is_ok();
        if whole && checksum(&bytes) == place.body_sum {
            return Ok(Some((place.head, Body::decode(&bytes))));
        }
        seen = Some((place.head, None));
    }
    Ok(seen)
}

/// Writes the state that follows `head`, in the place that is not valid now.
pub(crate) fn write(file: &File, path: &Path, head: &Head, body: &[u8]) -> Result<()> {
    debug_assert!(body.len() <= MAX_BODY_LEN);
    let mut bytes = Vec::with_capacity(HEAD_LEN + body.len());
    bytes.extend_from_slice(&encode_head(head, body));
    bytes.extend_from_slice(body);
    file.write_all_at(&bytes, place_of(head.sequence))
        .map_err(|source| failed("write to", path, source))
}

fn place_of(sequence: u64) -> u64 {
    (sequence % 2) * PLACE_LEN
}

struct Place {
    head: Head,
    body_len: usize,
    body_sum: u64,
}

fn newest(file: &File, path: &Path) -> Result<Option<Place>> {
    let first = read_place(file, path, 0)?;
    let second = read_place(file, path, PLACE_LEN)?;
    Ok([first, second]
        .into_iter()
        .flatten()
        .max_by_key(|place| place.head.sequence))
}

fn read_place(file: &File, path: &Path, at: u64) -> Result<Option<Place>> {
    let mut bytes = [0; HEAD_LEN];
    let len = file
        .read_at(&mut bytes, at)
        .map_err(|source| failed("read", path, source))?;
    let start = &bytes[..len.min(MAGIC.len())];
    // Zeros are what was not written, also after a first write that was cut short.
    let written = start.iter().zip(&MAGIC).take_while(|(a, b)| a == b).count();
    if start[written..].iter().any(|byte| *byte != 0) {
        return Err(foreign_file(path, "is no lock file"));
    }
    if len < HEAD_LEN {
        // Not written yet, or cut short.
        return Ok(None);
    }
    decode_head(&bytes, path)
}

fn encode_head(head: &Head, body: &[u8]) -> [u8; HEAD_LEN] {
    let (kind, of) = match head.discipline {
        Discipline::Unset => (0u32, 0),
        Discipline::Shared => (1, 0),
        Discipline::Permits(of) => (2, of),
    };
    let mut bytes = [0; HEAD_LEN];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&head.sequence.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.base.to_le_bytes());
    bytes[32..36].copy_from_slice(&kind.to_le_bytes());
    bytes[36..40].copy_from_slice(&of.to_le_bytes());
    bytes[40..48].copy_from_slice(&checksum(body).to_le_bytes());
    let sum = checksum(&bytes[..56]);
    bytes[56..64].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode_head(bytes: &[u8; HEAD_LEN], path: &Path) -> Result<Option<Place>> {
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
    if bytes[0..8] != MAGIC {
        return Ok(None);
    }
    let version = u32_at(8);
    if version == 0 {
        // Cut short behind the magic.
        return Ok(None);
    }
    if version != VERSION {
        return Err(error(
            ErrorKind::Backend,
            format!(
                "{} has record format {version}, this program knows {VERSION}; run programs of one \
                 release on one directory",
                path.display()
            ),
        ));
    }
    let discipline = match u32_at(32) {
        0 => Discipline::Unset,
        1 => Discipline::Shared,
        _ => Discipline::Permits(u32_at(36)),
    };
    let body_len = u32_at(12) as usize;
    let whole = checksum(&bytes[..56]) == u64_at(56) && body_len <= MAX_BODY_LEN;
    Ok(whole.then(|| Place {
        head: Head {
            sequence: u64_at(16),
            base: u64_at(24),
            discipline,
        },
        body_len,
        body_sum: u64_at(40),
    }))
}

/// 64-bit FNV-1a (Fowler, Noll, Vo): enough to tell a torn write from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What a file that only names its key holds.
pub(crate) fn vacant(key: &LockKey) -> Vec<u8> {
    Body::encode(key, None)
}

/// The record of a holder, if there is one.
pub(crate) fn holder(path: &Path, file: &File) -> Result<Option<PartyRecord>> {
    Ok(read(file, path)?.and_then(|(_, body)| body?.holder))
}

#[cfg(test)]
mod tests;
