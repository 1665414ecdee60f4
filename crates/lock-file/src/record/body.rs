//! The part of a record that people read: which key, who holds it.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::fork::ForkLocal;
use lock_core::{
    FencingNumber, LockKey, Mode, OwnerId, OwnerToken, PartyRecord, ProcessNonce, ProcessRecord,
    Request,
};

/// The body of a record: fields of one byte that says which, two that say how long, and the value.
/// A reader skips fields that it does not know.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) key: LockKey,
    pub(crate) holder: Option<PartyRecord>,
}

/// An encoded body.
pub(crate) type Bytes = Vec<u8>;

/// Most bodies are this short, beside the name of their key.
const USUAL_LEN: usize = 256;

/// A holder, as this process knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) request: &'a Request,
    pub(crate) since: SystemTime,
    pub(crate) fencing: Option<FencingNumber>,
}

/// The longest label that is kept for others to read.
const MAX_LABEL_LEN: usize = 512;
const MAX_HOST_LEN: usize = 256;

const KEY: u8 = 1;
const ATTEMPT: u8 = 2;
const MODE: u8 = 3;
const PRIORITY: u8 = 4;
const OWNER: u8 = 5;
const PID: u8 = 6;
const HOST: u8 = 7;
const BOOT: u8 = 8;
const NAMESPACE: u8 = 9;
const LABEL: u8 = 10;
const RECORD: u8 = 11;
const SINCE: u8 = 12;
const FENCING: u8 = 13;

impl Body {
    pub(crate) fn encode(key: &LockKey, holder: Option<Holder<'_>>) -> Bytes {
        let name = key.qualified().as_bytes();
        let mut out = Bytes::with_capacity(USUAL_LEN + name.len());
        put(&mut out, KEY, name);
        if let Some(holder) = holder {
            encode_holder(&mut out, holder);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = |tag| std::str::from_utf8(field(bytes, tag)?).ok();
        let key = LockKey::from_qualified(text(KEY)?).ok()?;
        Some(Self {
            key,
            holder: decode_holder(bytes),
        })
    }
}

fn encode_holder(out: &mut Bytes, holder: Holder<'_>) {
    let request = holder.request;
    put(out, ATTEMPT, &encode_attempt(request.attempt));
    put(out, MODE, &encode_mode(request.mode));
    put(out, PRIORITY, &request.priority.to_le_bytes());
    if let Some(owner) = request.owner {
        put(out, OWNER, owner.to_string().as_bytes());
    }
    out.extend_from_slice(this_process());
    if let Some(label) = &request.label {
        put(out, LABEL, cut(label, MAX_LABEL_LEN).as_bytes());
    }
    if let Some(record) = &request.record {
        put(out, RECORD, record);
    }
    if let Ok(since) = holder.since.duration_since(UNIX_EPOCH) {
        put(out, SINCE, &(since.as_micros() as u64).to_le_bytes());
    }
    if let Some(number) = holder.fencing {
        put(out, FENCING, &number.get().to_le_bytes());
    }
}

/// What every record of this process has in common, encoded once.
fn this_process() -> &'static [u8] {
    static ENCODED: ForkLocal<Bytes> = ForkLocal::new();
    ENCODED.get_or_init(|| {
        let process = ProcessRecord::of_this_process();
        let mut out = Bytes::new();
        put(&mut out, PID, &process.pid.to_le_bytes());
        let texts = [
            (HOST, &process.host),
            (BOOT, &process.boot_id),
            (NAMESPACE, &process.pid_namespace),
        ];
        for (tag, text) in texts {
            put(&mut out, tag, cut(text, MAX_HOST_LEN).as_bytes());
        }
        out
    })
}

fn encode_attempt(attempt: OwnerToken) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&attempt.process().to_bits().to_le_bytes());
    bytes[16..].copy_from_slice(&attempt.counter().to_le_bytes());
    bytes
}

fn decode_attempt(bytes: &[u8]) -> Option<OwnerToken> {
    let (process, counter) = bytes.split_at_checked(16)?;
    let process = ProcessNonce::from_bits(u128::from_le_bytes(process.try_into().ok()?));
    let counter = u64::from_le_bytes(counter.try_into().ok()?);
    Some(OwnerToken::from_parts(process, counter))
}

fn decode_holder(bytes: &[u8]) -> Option<PartyRecord> {
    let text = |tag| std::str::from_utf8(field(bytes, tag)?).ok();
    let number = |tag| Some(u64::from_le_bytes(field(bytes, tag)?.try_into().ok()?));
    let mut process = ProcessRecord::default();
    process.pid = u32::from_le_bytes(field(bytes, PID)?.try_into().ok()?);
    text(HOST)?.clone_into(&mut process.host);
    text(BOOT)?.clone_into(&mut process.boot_id);
    text(NAMESPACE)?.clone_into(&mut process.pid_namespace);
    let attempt = decode_attempt(field(bytes, ATTEMPT)?)?;
    let mut holder = PartyRecord::new(attempt, decode_mode(field(bytes, MODE)?)?, process);
    holder.priority = i8::from_le_bytes(field(bytes, PRIORITY)?.try_into().ok()?);
    holder.owner = text(OWNER).and_then(|owner| OwnerId::from_str(owner).ok());
    holder.label = text(LABEL).map(str::to_owned);
    holder.record = field(bytes, RECORD).map(<[u8]>::to_vec);
    holder.since = number(SINCE).map(|micros| UNIX_EPOCH + Duration::from_micros(micros));
    holder.fencing = number(FENCING).and_then(FencingNumber::from_raw);
    Some(holder)
}

fn encode_mode(mode: Mode) -> [u8; 9] {
    let (kind, count, of) = match mode {
        Mode::Exclusive => (0, 0, 0),
        Mode::Shared => (1, 0, 0),
        Mode::Permit(permits) => (2, permits.count(), permits.of()),
    };
    let mut bytes = [kind; 9];
    bytes[1..5].copy_from_slice(&count.to_le_bytes());
    bytes[5..9].copy_from_slice(&of.to_le_bytes());
    bytes
}

fn decode_mode(bytes: &[u8]) -> Option<Mode> {
    let bytes: [u8; 9] = bytes.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    match bytes[0] {
        0 => Some(Mode::Exclusive),
        1 => Some(Mode::Shared),
        _ => Mode::permits(u32_at(1), u32_at(5)).ok(),
    }
}

fn put(out: &mut Bytes, tag: u8, value: &[u8]) {
    debug_assert!(value.len() <= usize::from(u16::MAX));
    let [low, high] = (value.len() as u16).to_le_bytes();
    out.extend_from_slice(&[tag, low, high]);
    out.extend_from_slice(value);
}

fn field(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [tag, low, high, rest @ ..] = bytes {
        let (value, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        if *tag == wanted {
            return Some(value);
        }
        bytes = rest;
    }
    None
}

/// The longest start of `text` that fits.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
