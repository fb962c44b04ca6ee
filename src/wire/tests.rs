//! Frames there and back, as they were once written, and as nobody writes them.

use super::frame::BODY_MAX;
use super::*;
use crate::base::{
    BlockRun, ChunkId, ChunkNo, Epoch, FamilyId, LayerId, NodeId, PgId, Prng, VolumeId,
};
use crate::protocol::replication::{
    Answer, Asked, Change, Entry, Header, MEMBERS_MAX, Message, Refusal, WINDOW_MAX,
};

const HEADER: Header = Header {
    range: VolumeId(0x1122_3344_5566_7788),
    pg: PgId(9),
    epoch: Epoch {
        generation: 1,
        site: 2,
        host: 3,
    },
    version: 4,
    session: 6,
    mark: 5,
};
const AT: ChunkId = ChunkId {
    family: FamilyId(6),
    layer: LayerId(7),
    chunk: ChunkNo(63),
};

fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(first, count).unwrap()
}

/// One of each, with the blocks of payload that belong to it.
fn all() -> Vec<(Frame, u32)> {
    let mut crcs = [0; 16];
    crcs[..2].copy_from_slice(&[0xaabb_ccdd, 0x0102_0304]);
    let change = |change| Message::Change {
        sequence: 8,
        at: AT,
        change,
    };
    let entry = Entry {
        epoch: HEADER.epoch,
        sequence: 8,
        at: AT,
        blocks: 0x8001,
        version: 4,
    };
    let refused = |what, why| Answer::Refused { what, why };
    let messages = [
        (
            change(Change::Write {
                run: run(3, 2),
                crcs,
            }),
            2,
        ),
        (change(Change::Zero { run: run(15, 1) }), 0),
        (change(Change::ZeroChunks { count: 1 }), 0),
        (
            Message::Read {
                id: 10,
                at: AT,
                run: run(0, 16),
            },
            0,
        ),
        (Message::Mark, 0),
        (Message::Seal, 0),
    ];
    let value = |newest| Answer::Value {
        id: 10,
        newest,
        crcs,
        zeroes: 0x00f0,
    };
    let answers = [
        (Answer::Done { sequence: 8 }, 0),
        (value(None), 2),
        (value(Some((HEADER.epoch, 8))), 16),
        (Answer::Sealed { window: Vec::new() }, 0),
        (
            Answer::Sealed {
                window: vec![entry; 3],
            },
            0,
        ),
        (
            refused(Asked::Change { sequence: 8 }, Refusal::Epoch(HEADER.epoch)),
            0,
        ),
        (refused(Asked::Read { id: 10 }, Refusal::Version(5)), 0),
        (refused(Asked::Mark, Refusal::Busy), 0),
        (refused(Asked::Seal, Refusal::Failed), 0),
        (refused(Asked::Seal, Refusal::NoReplica), 0),
    ];
    let messages = messages
        .into_iter()
        .map(|(message, blocks)| (Frame::Message(HEADER, message), blocks));
    let answers = answers
        .into_iter()
        .map(|(answer, blocks)| (Frame::Answer(HEADER, answer), blocks));
    messages.chain(answers).collect()
}

fn encode(frame: &Frame, blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    match frame {
        Frame::Message(header, message) => encode_message(header, message, blocks, &mut bytes),
        Frame::Answer(header, answer) => encode_answer(header, answer, blocks, &mut bytes),
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<(Frame, u32), Malformed> {
    let (head, body) = bytes.split_at(HEAD_LEN);
    let head = Head::decode(head.try_into().unwrap())?;
    Ok((decode(&head, body)?, head.payload_blocks()))
}

#[test]
fn every_frame_is_read_as_it_was_written() {
    for (frame, blocks) in all() {
        let bytes = encode(&frame, blocks);
        assert_eq!(read(&bytes), Ok((frame, blocks)));
    }
}

#[test]
fn the_bytes_of_version_1_are_what_they_were() {
    let told = include_str!("fixtures/version_1.txt");
    let mut heard = String::new();
    for (frame, blocks) in all() {
        let bytes = encode(&frame, blocks);
        let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        heard.push_str(&line);
        heard.push('\n');
    }
    if std::env::var_os("SARSEN_REWRITE_STORIES").is_some_and(|value| value == "1") {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/wire/fixtures/version_1.txt"
        );
        return std::fs::write(path, heard).unwrap();
    }
    assert_eq!(heard, told);
}

#[test]
fn the_longest_window_fits_a_body() {
    let window_of = |(frame, _)| match frame {
        Frame::Answer(_, Answer::Sealed { window }) => window.first().copied(),
        _ => None,
    };
    let entry = all().into_iter().find_map(window_of).unwrap();
    let window = vec![entry; MEMBERS_MAX * WINDOW_MAX];
    let frame = Frame::Answer(HEADER, Answer::Sealed { window });
    let bytes = encode(&frame, 0);
    assert!(bytes.len() <= HEAD_LEN + BODY_MAX);
    assert_eq!(read(&bytes), Ok((frame, 0)));
}

#[test]
fn a_flipped_bit_is_never_read_as_a_frame() {
    for (frame, blocks) in all() {
        let bytes = encode(&frame, blocks);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit} of {frame:?}");
        }
    }
}

/// Nonsense under right checksums: it is refused with a field's name, or it is a frame that is written as the same bytes.
#[test]
fn fuzz_a_frame_with_right_checksums_is_a_frame_or_refused() {
    let mut prng = Prng::new(11);
    let (mut taken, mut refused) = (0, 0);
    let frames = all();
    for _ in 0..60_000 {
        let (frame, blocks) = &frames[prng.below(frames.len() as u64) as usize];
        let mut bytes = encode(frame, *blocks);
        for _ in 0..=prng.below(2) {
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = match prng.below(3) {
                0 => 0,
                1 => 0xff,
                _ => prng.below(256) as u8,
            };
        }
        let body_crc = crate::base::crc::of(&bytes[HEAD_LEN..]);
        bytes[44..48].copy_from_slice(&body_crc.to_le_bytes());
        let head_crc = crate::base::crc::of(&bytes[..60]);
        bytes[60..64].copy_from_slice(&head_crc.to_le_bytes());
        match read(&bytes) {
            Ok((frame, blocks)) => {
                assert_eq!(encode(&frame, blocks), bytes, "{frame:?}");
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 6_000 && refused > 6_000,
        "{taken} taken, {refused} refused"
    );
}

fn hello() -> Hello {
    Hello {
        versions: VERSION_MIN..=VERSION_MAX,
        node: NodeId(7),
        cluster: *b"a cluster's name",
        incarnation: 12,
    }
}

#[test]
fn a_hello_is_read_as_it_was_written_and_nothing_else_is() {
    let mut bytes = Vec::new();
    hello().encode(&mut bytes);
    let bytes: [u8; HELLO_LEN] = bytes.try_into().unwrap();
    assert_eq!(Hello::decode(&bytes), Ok(hello()));
    for bit in 0..HELLO_LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Hello::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn two_sides_speak_the_highest_version_that_both_know() {
    assert_eq!(agree(&(1..=1), &(1..=1)), Some(1));
    assert_eq!(agree(&(2..=3), &(1..=2)), Some(2));
    assert_eq!(agree(&(1..=2), &(2..=3)), Some(2));
    assert_eq!(agree(&(3..=4), &(1..=2)), None);
    assert_eq!(agree(&(1..=2), &(3..=4)), None);
}
