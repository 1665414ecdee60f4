//! What stands in a lock file: the fencing counter, the discipline, who holds.

use std::os::unix::fs::FileExt;
use std::path::Path;

use lock_core::host::LockFile;
use lock_core::{ErrorKind, LockKey, Mode, PartyRecord, Result};

use crate::error::{error, failed, foreign_file};
use crate::page::{DOOR_AT, DOOR_LEN, HEAD_LEN, MAX_BODY_LEN, PlaceAt};

mod body;

pub(crate) use body::{Body, Bytes, Holder};

/// The state of a key, as its file keeps it.
///
/// The file has two places for it, written in turn; each has its own checksums. A write that was
/// cut short, or that a reader meets half-way, leaves the other place, which is one write older.
/// Where they are is [`Page`](crate::page::Page)'s matter.
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
const VERSION: u32 = 2;

/// Reads the valid head; the default one from a file that was never written.
pub(crate) fn read_head(file: &LockFile) -> Result<Head> {
    newest_head(&read_door(file)?, file.path())
}

/// The valid head of what [`read_door`] read.
pub(crate) fn newest_head(door: &[u8; DOOR_LEN], path: &Path) -> Result<Head> {
    Ok(newest(door, path)?.map_or_else(Head::default, |place| place.head))
}

/// Reads both heads, and what stands between them.
pub(crate) fn read_door(file: &LockFile) -> Result<[u8; DOOR_LEN]> {
    let mut door = [0; DOOR_LEN];
    let mut len = 0;
    while len < DOOR_LEN {
        let read = file
            .file()
            .read_at(&mut door[len..], (DOOR_AT + len) as u64);
        match read.map_err(|source| failed("read", file.path(), source))? {
            0 => break,
            more => len += more,
        }
    }
    // A file of ours reaches as far from its first write on.
    if len == 0 && file.current_len().is_some_and(|len| len > 0) {
        return Err(foreign_file(file.path(), "is no lock file"));
    }
    Ok(door)
}

/// Reads head and body. The body is `None` when nothing was written yet, or when every look met a
/// write half-way.
pub(crate) fn read(file: &LockFile) -> Result<Option<(Head, Option<Body>)>> {
    const LOOKS: usize = 8;
    let mut seen = None;
    for _ in 0..LOOKS {
        let Some(place) = newest(&read_door(file)?, file.path())? else {
            return Ok(None);
        };
        let mut bytes = vec![0; place.body_len];
        let at = PlaceAt::of(place.head.sequence, place.body_len).body;
        let whole = file.file().read_exact_at(&mut bytes, at as u64).is_ok();
        if whole && checksum(&bytes) == place.body_sum {
            return Ok(Some((place.head, Body::decode(&bytes))));
        }
        seen = Some((place.head, None));
    }
    Ok(seen)
}

/// Writes the state that follows `head`, in the place that is not valid now.
pub(crate) fn write(file: &LockFile, head: &Head, body: &[u8]) -> Result<()> {
    debug_assert!(body.len() <= MAX_BODY_LEN);
    let at = PlaceAt::of(head.sequence, body.len());
    let encoded = encode_head(head, body);
    let write = |bytes: &[u8], at: usize| {
        let written = file.file().write_all_at(bytes, at as u64);
        written.map_err(|source| failed("write to", file.path(), source))
    };
    if !at.is_in_page() {
        write(body, at.body)?;
        return write(&encoded, at.head);
    }
    // One write for both, whichever comes first.
    let start = at.head.min(at.body);
    let mut bytes = [0; DOOR_AT + HEAD_LEN];
    let mut end = 0;
    for (part, at) in [(body, at.body), (&encoded[..], at.head)] {
        let from = at - start;
        bytes[from..from + part.len()].copy_from_slice(part);
        end = end.max(from + part.len());
    }
    write(&bytes[..end], start)
}

/// Whether a state has its place in the page.
pub(crate) fn fits_page(head: &Head, body: &[u8]) -> bool {
    PlaceAt::of(head.sequence, body.len()).is_in_page()
}

struct Place {
    head: Head,
    body_len: usize,
    body_sum: u64,
}

fn newest(door: &[u8; DOOR_LEN], path: &Path) -> Result<Option<Place>> {
    let head = |bytes: Option<&[u8; HEAD_LEN]>| match bytes {
        Some(bytes) => decode_head(bytes, path),
        None => Ok(None),
    };
    let heads = [head(door.first_chunk())?, head(door.last_chunk())?];
    let written = heads.into_iter().flatten();
    Ok(written.max_by_key(|place| place.head.sequence))
}

pub(crate) fn encode_head(head: &Head, body: &[u8]) -> [u8; HEAD_LEN] {
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

/// `None` for what was not written yet, or cut short.
fn decode_head(bytes: &[u8; HEAD_LEN], path: &Path) -> Result<Option<Place>> {
    let u32_at = |at: usize| u32::from_le_bytes(array_at(bytes, at));
    let u64_at = |at: usize| u64::from_le_bytes(array_at(bytes, at));
    let start: [u8; MAGIC.len()] = array_at(bytes, 0);
    let version = u32_at(8);
    if start != MAGIC || version == 0 {
        return not_written(start, path).map(|()| None);
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

fn array_at<const LEN: usize>(bytes: &[u8; HEAD_LEN], at: usize) -> [u8; LEN] {
    let mut array = [0; LEN];
    array.copy_from_slice(&bytes[at..at + LEN]);
    array
}

/// Whether this is the start of a head that was written in part, or not at all.
#[cold]
fn not_written(start: [u8; MAGIC.len()], path: &Path) -> Result<()> {
    let written = start.iter().zip(&MAGIC).take_while(|(a, b)| a == b).count();
    match start[written..].iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(foreign_file(path, "is no lock file")),
    }
}

/// Tells a torn write from a whole one. FNV-1a (Fowler, Noll, Vo) in steps of eight bytes, with a
/// shift so that high bits count in low ones.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    words(bytes).fold(start, |sum, word| {
        let sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3);
        sum ^ (sum >> 29)
    })
}

/// The bytes by eight, the last ones filled up with zeros.
#[inline]
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 8]> {
    let (whole, rest) = bytes.as_chunks();
    let last = (!rest.is_empty()).then(|| {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        word
    });
    whole.iter().copied().chain(last)
}

/// What a file that only names its key holds.
pub(crate) fn vacant(key: &LockKey) -> Bytes {
    Body::encode(key, None)
}

/// The record of a holder, if there is one.
pub(crate) fn holder(file: &LockFile) -> Result<Option<PartyRecord>> {
    Ok(read(file)?.and_then(|(_, body)| body?.holder))
}

#[cfg(test)]
mod tests;
