//! Frames as nobody writes them. Mostly they are whole but for a few bytes, under checksums that are right, so that what stands behind the
//! checksums is really entered.

use super::samples::{any, named};
use super::{encode, read, read_as};
use crate::base::{ChunkId, Epoch, Prng, VolumeId, crc};
use crate::protocol::replication::fill::{FillAnswer, PAGE_MAX};
use crate::protocol::replication::{Answer, Entry};
use crate::wire::*;
use std::collections::BTreeSet;

/// Makes the checksums right; with `lengths`, that of the body too.
fn mend(bytes: &mut [u8], lengths: bool) {
    let (head, body) = bytes.split_at_mut(HEAD_LEN);
    if lengths {
        head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    }
    head[16..20].copy_from_slice(&crc::of(body).to_le_bytes());
    let crc = crc::of(&head[..68]);
    head[68..].copy_from_slice(&crc.to_le_bytes());
}

/// Numbers at which something ends.
fn edge(prng: &mut Prng) -> u32 {
    let edges = [
        0,
        1,
        16,
        PAGE_MAX as u32,
        PAGE_MAX as u32 + 1,
        ENTRIES_MAX as u32,
        ENTRIES_MAX as u32 + 1,
        BODY_MAX as u32 + 1,
        PAYLOAD_MAX as u32,
        u32::MAX,
    ];
    edges[prng.below(edges.len() as u64) as usize]
}

/// Changes a frame in one place: a byte, a bit, a number, a piece that is left out, comes twice, or is of another frame.
fn mutate(bytes: &mut Vec<u8>, prng: &mut Prng) {
    let at = match prng.below(3) {
        // The fields that say what the rest is: kind, lengths, session, tag.
        0 => [4, 8, 12, 32, 36, 64, HEAD_LEN][prng.below(7) as usize],
        _ => prng.below(bytes.len() as u64) as usize,
    };
    if at >= bytes.len() {
        return;
    }
    match prng.below(8) {
        0 => bytes[at] = 0,
        1 => bytes[at] = 0xff,
        2 => bytes[at] ^= 1 << prng.below(8),
        3 => bytes[at] = prng.below(10) as u8,
        4 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&edge(prng).to_le_bytes()),
        5 => bytes.truncate(at.max(HEAD_LEN)),
        6 => {
            let from = at.max(HEAD_LEN).min(bytes.len());
            bytes.extend_from_within(from..);
        }
        _ => {
            let other = encode(&any(prng));
            let from = at.max(HEAD_LEN);
            if let Some(piece) = other.get(from..) {
                bytes.truncate(from);
                bytes.extend_from_slice(piece);
            }
        }
    }
}

/// Bytes of memory that a frame holds besides itself.
fn held(frame: &Frame) -> usize {
    match frame {
        Frame::Answer(_, Answer::Sealed { window, .. }) => window.capacity() * size_of::<Entry>(),
        Frame::FillAnswer(_, answer) => match answer {
            FillAnswer::Fences { fences, .. } => fences.capacity() * size_of::<(VolumeId, Epoch)>(),
            FillAnswer::Listed { chunks, .. } => chunks.capacity() * size_of::<ChunkId>(),
            FillAnswer::Content { entries, .. } => {
                entries.capacity() * size_of::<(VolumeId, Entry)>()
            }
            _ => 0,
        },
        _ => 0,
    }
}

/// Version 1 reads what version 2 reads, into the same, but for what version 2 brought; and writes what it reads.
fn in_version_1(bytes: &[u8]) {
    let (one, two) = (read_as(Version::One, bytes), read(bytes));
    let of = |frame| Feature::of(frame).or_else(|| Feature::hinted(frame));
    let needs = two.as_ref().ok().and_then(|(_, frame)| of(frame));
    match (&one, needs) {
        (_, None) => assert_eq!(one.as_ref().ok(), two.as_ref().ok()),
        (found, Some(needs)) => assert!(found.is_err(), "{needs:?}"),
    }
    if let Ok((head, frame)) = one {
        let mut again = Vec::new();
        let blocks = head.payload_blocks();
        let written = frame.encode(Version::One, head.disk, blocks, &mut again);
        set_number(&mut again, head.number);
        assert_eq!((written, &again[..]), (Ok(()), bytes), "one-spelling");
    }
}

#[test]
fn fuzz_a_frame_with_right_checksums_is_a_frame_or_refused() {
    let mut prng = Prng::new(11);
    let mut taken = [0; 9];
    let mut refused: BTreeSet<&str> = BTreeSet::new();
    for _ in 0..150_000 {
        let mut bytes = encode(&any(&mut prng));
        for _ in 0..=prng.below(3) {
            mutate(&mut bytes, &mut prng);
        }
        mend(&mut bytes, !prng.one_in(8));
        in_version_1(&bytes);
        match read(&bytes) {
            Ok((head, frame)) => {
                let mut again = Vec::new();
                let blocks = head.payload_blocks();
                let version = Version::PRESENT;
                frame
                    .encode(version, head.disk, blocks, &mut again)
                    .unwrap();
                set_number(&mut again, head.number);
                assert_eq!(again, bytes, "one-spelling: {frame:?}");
                assert!(held(&frame) <= 2 * bytes.len(), "{frame:?}");
                taken[usize::from(bytes[4]) - 1] += 1;
            }
            Err(malformed) => {
                refused.insert(malformed.field);
            }
        }
    }
    assert!(taken.iter().all(|of| *of > 2_000), "{taken:?}");
    let all = [
        "after",
        "answer",
        "below",
        "blocks",
        "blocks of an entry",
        "blocks of payload",
        "blocks that are zeroes",
        "chunk",
        "chunks",
        "credit",
        "digest",
        "entries",
        "fences",
        "kind",
        "length of the body",
        "length of the payload",
        "low",
        "magic",
        "message",
        "more",
        "moving",
        "newest",
        "order of the chunks",
        "order of the fences",
        "question",
        "sequence",
        "session",
        "takes space",
        "what was refused",
        "why it was refused",
        "zero",
        "zeroes",
    ];
    assert_eq!(refused, all.into_iter().collect());
}

#[test]
fn fuzz_bytes_of_any_sort_are_refused() {
    let mut prng = Prng::new(12);
    for _ in 0..20_000 {
        let mut bytes = vec![0; prng.below(300) as usize];
        prng.fill(&mut bytes);
        assert!(read(&bytes).is_err());
    }
}

#[test]
fn a_flipped_bit_is_never_read_as_a_frame() {
    for (name, of) in super::all() {
        let bytes = encode(&of);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit} of {name}");
        }
    }
}

#[test]
fn a_frame_that_ends_too_soon_is_refused_also_where_its_checksums_are_right() {
    for (name, of) in super::all() {
        let bytes = encode(&of);
        for len in HEAD_LEN..bytes.len() {
            let mut short = bytes[..len].to_vec();
            assert!(read(&short).is_err(), "{len} bytes of {name}");
            mend(&mut short, true);
            assert!(read(&short).is_err(), "{len} bytes of {name}");
        }
    }
}

/// What `change` makes of the body of a sample is refused with this field's name.
fn refuses(name: &str, field: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = encode(&named(name));
    change(&mut bytes);
    mend(&mut bytes, true);
    let found = read(&bytes).map_err(|malformed| malformed.field);
    assert_eq!(found.err(), Some(field), "{name}");
}

#[test]
fn a_count_without_its_bytes_is_refused_before_room_is_taken() {
    let set = |at: usize, count: usize| {
        move |bytes: &mut Vec<u8>| {
            let at = HEAD_LEN + at;
            bytes[at..at + 4].copy_from_slice(&(count as u32).to_le_bytes());
        }
    };
    for count in [4, ENTRIES_MAX, ENTRIES_MAX + 1, u32::MAX as usize] {
        refuses("sealed", "entries", set(2, count));
        refuses("content_data", "entries", set(1 + 24 + 24 + 4 + 8, count));
    }
    for count in [3, PAGE_MAX, PAGE_MAX + 1, u32::MAX as usize] {
        refuses("fences", "fences", set(2, count));
        refuses("listed", "chunks", set(2, count));
    }
}

#[test]
fn a_page_out_of_its_order_is_refused() {
    // The second of each becomes the first.
    refuses("fences", "order of the fences", |bytes| {
        bytes.copy_within(HEAD_LEN + 6..HEAD_LEN + 26, HEAD_LEN + 26);
    });
    refuses("listed", "order of the chunks", |bytes| {
        bytes.copy_within(HEAD_LEN + 6..HEAD_LEN + 30, HEAD_LEN + 30);
    });
    refuses("listed_empty", "more", |bytes| bytes[HEAD_LEN + 1] = 1);
    refuses("fences_empty", "more", |bytes| bytes[HEAD_LEN + 1] = 1);
}

#[test]
fn content_with_masks_that_overlap_is_refused() {
    refuses("content_data", "blocks that are zeroes", |bytes| {
        bytes[HEAD_LEN + 1 + 24 + 24 + 2] = 1;
    });
}

#[test]
fn payload_that_does_not_belong_to_its_frame_is_refused() {
    let set = |blocks: u32| {
        move |bytes: &mut Vec<u8>| bytes[12..16].copy_from_slice(&(blocks * 4096).to_le_bytes())
    };
    for (name, (_, blocks)) in super::all() {
        if blocks != 0 && !name.starts_with("value") {
            refuses(name, "blocks of payload", set(0));
            refuses(name, "blocks of payload", set(blocks - 1));
        }
        if blocks == 0 {
            refuses(name, "blocks of payload", set(1));
        }
    }
    refuses("content_data", "length of the payload", set(17));
}

#[test]
fn a_session_that_cannot_be_is_refused() {
    let set = |session: u8| move |bytes: &mut Vec<u8>| bytes[32] = session;
    for name in ["write", "done", "ask_fetch", "not_now"] {
        refuses(name, "session", set(5));
    }
    for name in ["ask_fetch", "not_now"] {
        refuses(name, "session", set(0));
    }
}
