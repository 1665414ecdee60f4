use std::time::SystemTime;

use lock_core::{AcquireOptions, FencingNumber, OwnerId, Wait};
use proptest::prelude::*;

use super::*;

fn key() -> LockKey {
    LockKey::new("Orders/42").unwrap()
}

fn head(sequence: u64) -> Head {
    Head {
        sequence,
        base: 1000 + sequence,
        discipline: Discipline::Permits(7),
    }
}

/// A file of a test, with its directory.
fn file() -> (tempfile::TempDir, LockFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = LockFile::open(directory.path().join("x")).unwrap();
    (directory, file)
}

fn body_of(sequence: u64) -> Bytes {
    let label = format!("write {sequence} {}", "x".repeat((sequence % 300) as usize));
    let request = AcquireOptions::new()
        .label(label)
        .to_request(Wait::Now)
        .unwrap();
    Body::encode(
        &key(),
        Some(Holder {
            request: &request,
            since: SystemTime::now(),
            fencing: None,
        }),
    )
}

#[test]
fn a_holder_reads_back_as_it_was_written() {
    let (_directory, file) = file();
    let owner = OwnerId::new();
    let request = AcquireOptions::new()
        .mode(Mode::permits(2, 7).unwrap())
        .priority(-3)
        .owner(owner)
        .label("é".repeat(400))
        .record(vec![0, 255])
        .to_request(Wait::Now)
        .unwrap();
    let number = FencingNumber::from_base(5).unwrap();
    let written = Holder {
        request: &request,
        since: UNIX_EPOCH_PLUS_1,
        fencing: Some(number),
    };
    write(&file, &head(1), &Body::encode(&key(), Some(written))).unwrap();
    let (read_head, body) = read(&file).unwrap().unwrap();
    assert_eq!(read_head, head(1));
    let body = body.unwrap();
    assert_eq!(body.key, key());
    let holder = body.holder.unwrap();
    assert_eq!(holder.attempt, request.attempt);
    assert_eq!((holder.mode, holder.priority), (request.mode, -3));
    assert_eq!((holder.owner, holder.fencing), (Some(owner), Some(number)));
    assert_eq!(holder.label.unwrap().len(), 512, "cut at a character");
    assert_eq!(holder.record.unwrap(), [0, 255]);
    assert_eq!(holder.since, Some(UNIX_EPOCH_PLUS_1));
    assert_eq!(holder.process, ProcessRecordNow::get());
}

const UNIX_EPOCH_PLUS_1: SystemTime = SystemTime::UNIX_EPOCH;

struct ProcessRecordNow;
impl ProcessRecordNow {
    fn get() -> lock_core::ProcessRecord {
        lock_core::ProcessRecord::current()
    }
}

#[test]
fn the_largest_record_fits_its_place() {
    let key = LockKey::new("x".repeat(LockKey::MAX_LEN)).unwrap();
    let key = key.in_namespace(&"n".repeat(64)).unwrap();
    let request = AcquireOptions::new()
        .label("l".repeat(4000))
        .owner(OwnerId::new())
        .record(vec![1; AcquireOptions::MAX_RECORD_LEN])
        .to_request(Wait::Now)
        .unwrap();
    let holder = Holder {
        request: &request,
        since: SystemTime::now(),
        fencing: FencingNumber::from_base(1),
    };
    // 512 is spared for longer names of host and boot.
    assert!(Body::encode(&key, Some(holder)).len() + 512 <= MAX_BODY_LEN);
}

#[test]
fn another_version_and_another_kind_of_file_are_refused() {
    let (_directory, file) = file();
    write(&file, &head(1), &vacant(&key())).unwrap();
    let at = PlaceAt::of(1, 0).head as u64;
    file.file()
        .write_all_at(&9u32.to_le_bytes(), at + 8)
        .unwrap();
    let newer = read_head(&file).unwrap_err();
    assert!(newer.message().contains("record format 9"), "{newer}");
    for foreign in [100, 5000] {
        let (_directory, file) = self::file();
        assert_eq!(read_head(&file).unwrap(), Head::default(), "empty");
        file.file().write_all_at(&vec![b'x'; foreign], 0).unwrap();
        assert!(read_head(&file).is_err());
    }
}

#[test]
fn the_page_in_memory_is_the_file() {
    use crate::key_file::KeyFile;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    let mut mapped = KeyFile::open(path.clone(), true).unwrap();
    assert_eq!(
        mapped.map(),
        cfg!(any(target_os = "linux", target_os = "android"))
    );
    let file = LockFile::open(path).unwrap();
    // Written by either, read by both; bodies that fit their place, and one that does not.
    for sequence in 1..40u64 {
        let body = match sequence % 5 {
            0 => vacant(&LockKey::new("x".repeat(4000)).unwrap()),
            _ => body_of(sequence),
        };
        match sequence % 3 {
            0 => write(&file, &head(sequence), &body).unwrap(),
            _ => mapped.write(&head(sequence), &body).unwrap(),
        }
        assert_eq!(mapped.door().unwrap().head, head(sequence));
        let (read_back, written) = read(&file).unwrap().unwrap();
        assert_eq!((read_back, written.is_some()), (head(sequence), true));
    }
}

proptest! {
    /// The last write stops after any number of bytes: the state is the new or the previous one.
    #[test]
    fn a_write_cut_short_leaves_the_previous_state(
        writes in 1u64..6,
        kept in 0usize..1200,
    ) {
        let (_directory, file) = file();
        for sequence in 1..=writes {
            write(&file, &head(sequence), &body_of(sequence)).unwrap();
        }
        let next = writes + 1;
        let body = body_of(next);
        let at = PlaceAt::of(next, body.len());
        let encoded = encode_head(&head(next), &body);
        // As one stretch, in the order of the file.
        let mut parts = [(at.head, &encoded[..]), (at.body, &body[..])];
        parts.sort_by_key(|(at, _)| *at);
        let mut left = kept;
        for (at, part) in parts {
            let now = left.min(part.len());
            file.file().write_all_at(&part[..now], at as u64).unwrap();
            left -= now;
        }
        let mut now = [0; HEAD_LEN];
        file.file().read_exact_at(&mut now, at.head as u64).unwrap();
        let read_back = read_head(&file).unwrap();
        if now == encoded {
            prop_assert_eq!(read_back, head(next), "a whole head counts: numbers never go back");
            let mut bytes = vec![0; body.len()];
            let whole = file.file().read_exact_at(&mut bytes, at.body as u64).is_ok() && bytes[..] == body[..];
            let (_, body) = read(&file).unwrap().unwrap();
            prop_assert_eq!(body.is_some(), whole, "half a record names nobody");
        } else {
            prop_assert_eq!(read_back, head(writes));
        }
    }

    /// Any damage inside a place is noticed.
    #[test]
    fn a_damaged_place_is_not_believed(at in 12usize..HEAD_LEN, flip in 1u8..=255) {
        let (_directory, file) = file();
        write(&file, &head(1), &body_of(1)).unwrap();
        write(&file, &head(2), &body_of(2)).unwrap();
        let at = (PlaceAt::of(2, 0).head + at) as u64;
        let mut byte = [0];
        file.file().read_exact_at(&mut byte, at).unwrap();
        file.file().write_all_at(&[byte[0] ^ flip], at).unwrap();
        prop_assert_eq!(read_head(&file).unwrap(), head(1));
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Body::decode(&bytes);
    }
}
