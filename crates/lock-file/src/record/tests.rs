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

fn body_of(sequence: u64) -> Vec<u8> {
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
    let file = tempfile::tempfile().unwrap();
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
    let path = Path::new("x");
    write(&file, path, &head(1), &Body::encode(&key(), Some(written))).unwrap();
    let (read_head, body) = read(&file, path).unwrap().unwrap();
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
    let path = Path::new("x");
    let file = tempfile::tempfile().unwrap();
    write(&file, path, &head(2), &vacant(&key())).unwrap();
    file.write_all_at(&2u32.to_le_bytes(), 8).unwrap();
    let newer = read_head(&file, path).unwrap_err();
    assert!(newer.message().contains("record format 2"), "{newer}");
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[b'x'; 100], 0).unwrap();
    assert!(read_head(&file, path).is_err());
    let empty = tempfile::tempfile().unwrap();
    assert_eq!(read_head(&empty, path).unwrap(), Head::default());
}

proptest! {
    /// The last write stops after any number of bytes: the state is the new or the previous one.
    #[test]
    fn a_write_cut_short_leaves_the_previous_state(
        writes in 1u64..6,
        kept in 0usize..1200,
    ) {
        let path = Path::new("x");
        let file = tempfile::tempfile().unwrap();
        for sequence in 1..=writes {
            write(&file, path, &head(sequence), &body_of(sequence)).unwrap();
        }
        let next = writes + 1;
        let body = body_of(next);
        let mut bytes = encode_head(&head(next), &body).to_vec();
        bytes.extend_from_slice(&body);
        let kept = kept.min(bytes.len());
        file.write_all_at(&bytes[..kept], place_of(next)).unwrap();

        // The rest of an earlier write may happen to complete this one.
        let mut now = vec![0; bytes.len()];
        let len = file.read_at(&mut now, place_of(next)).unwrap();
        let head_is_whole = now[..HEAD_LEN] == bytes[..HEAD_LEN];
        let read_back = read_head(&file, path).unwrap();
        if head_is_whole {
            prop_assert_eq!(read_back, head(next), "a whole head counts: numbers never go back");
            let (_, body) = read(&file, path).unwrap().unwrap();
            let whole = len == bytes.len() && now == bytes;
            prop_assert_eq!(body.is_some(), whole, "half a record names nobody");
        } else {
            prop_assert!(kept < HEAD_LEN);
            prop_assert_eq!(read_back, head(writes));
        }
    }

    /// Any damage inside a place is noticed.
    #[test]
    fn a_damaged_place_is_not_believed(at in 12usize..HEAD_LEN, flip in 1u8..=255) {
        let path = Path::new("x");
        let file = tempfile::tempfile().unwrap();
        write(&file, path, &head(1), &body_of(1)).unwrap();
        write(&file, path, &head(2), &body_of(2)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ flip], at as u64).unwrap();
        prop_assert_eq!(read_head(&file, path).unwrap(), head(1));
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Body::decode(&bytes);
    }
}
