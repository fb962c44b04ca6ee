//! Frames there and back, as they were once written, and as nobody writes them.

mod fuzz;
mod hellos;
mod layout;
pub(super) mod samples;

use super::*;
use crate::base::{ChunkId, ChunkNo, DiskId, Prng, VolumeId};
use crate::protocol::replication::fill::{FillAnswer, FillHeader, PAGE_MAX};
use crate::protocol::replication::{Answer, Entry, Room};
use samples::{AT, ENTRY, FILL, HEADER, Sample, all, any, named};

const DISK: DiskId = DiskId(0x0d15_c000);

fn encode((frame, blocks): &Sample) -> Vec<u8> {
    let mut bytes = Vec::new();
    let version = Version::PRESENT;
    frame.encode(version, DISK, *blocks, &mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<(Head, Frame), Malformed> {
    read_as(Version::PRESENT, bytes)
}

fn read_as(version: Version, bytes: &[u8]) -> Result<(Head, Frame), Malformed> {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return Err(field::TOO_SHORT);
    };
    let head = Head::decode(version, head)?;
    let frame = decode(version, &head, body)?;
    Ok((head, frame))
}

fn sample(bytes: &[u8]) -> Sample {
    let (head, frame) = read(bytes).unwrap();
    let is_of_a_disk = head.kind != Kind::Credit;
    assert_eq!(head.disk, if is_of_a_disk { DISK } else { DiskId(0) });
    (frame, head.payload_blocks())
}

#[test]
fn every_frame_is_read_as_it_was_written() {
    for (name, of) in all() {
        assert_eq!(sample(&encode(&of)), of, "{name}");
    }
}

#[test]
fn a_random_frame_is_read_as_it_was_written_and_written_as_it_was_read() {
    let mut prng = Prng::new(7);
    for _ in 0..20_000 {
        let of = any(&mut prng);
        let bytes = encode(&of);
        assert!(bytes.len() <= HEAD_LEN + BODY_MAX);
        assert_eq!(sample(&bytes), of);
        assert_eq!(encode(&sample(&bytes)), bytes);
    }
}

#[test]
fn a_frame_is_appended_to_what_is_there() {
    let (frame, blocks) = named("write");
    let mut bytes = b"before".to_vec();
    let version = Version::PRESENT;
    frame.encode(version, DISK, blocks, &mut bytes).unwrap();
    assert_eq!(bytes[..6], *b"before");
    assert_eq!(bytes[6..], encode(&(frame, blocks)));
}

#[test]
fn the_number_of_a_frame_is_read_as_it_was_set_and_changes_nothing_else() {
    for (name, of) in all() {
        let mut bytes = encode(&of);
        for number in [0, 1, 7, u32::MAX] {
            set_number(&mut bytes, number);
            let (head, frame) = read(&bytes).unwrap();
            assert_eq!((head.number, frame), (number, of.0.clone()), "{name}");
        }
        set_number(&mut bytes, 0);
        assert_eq!(bytes, encode(&of), "{name}");
    }
}

#[test]
fn an_answer_has_the_name_of_the_question_that_it_answers() {
    let question = |name: &str| named(name).0.question(DISK);
    for (ask, answers) in [
        (
            "write",
            &["done", "done_low", "refused_epoch", "refused_session"][..],
        ),
        (
            "read",
            &["value_settled", "value_newest", "refused_version"],
        ),
        (
            "seal",
            &["sealed", "sealed_empty", "sealed_low", "refused_failed"],
        ),
        ("confirm", &["confirmed", "refused_confirm"]),
        ("fits", &["fits_nothing", "fits_space", "refused_fits"]),
        (
            "ask_fences",
            &["fences", "fences_empty", "version", "not_now"],
        ),
        ("ask_list", &["listed", "listed_empty", "not_now"]),
        ("ask_fetch", &["content_data", "content_absent", "not_now"]),
        ("mend_ask", &["mend_blocks", "mend_none", "mend_not_now"]),
        (
            "compare_ask",
            &["compare_held", "compare_nothing", "compare_not_now"],
        ),
    ] {
        assert!(matches!(named(ask).0.class(), Class::Ask(_)), "{ask}");
        for answer in answers {
            assert_eq!(question(ask), question(answer), "{ask}, {answer}");
            assert_eq!(named(answer).0.class(), Class::Answer, "{answer}");
        }
        assert_ne!(question(ask), named(ask).0.question(DiskId(1)), "{ask}");
    }
    for none in ["mark", "refused_busy", "credit"] {
        assert_eq!(question(none), None, "{none}");
    }
    assert_ne!(question("read"), question("confirm"));
    assert_ne!(question("write"), question("read"));
}

#[test]
fn an_ask_costs_what_it_and_its_longest_answer_hold() {
    let mut prng = Prng::new(8);
    for _ in 0..5_000 {
        let (frame, blocks) = any(&mut prng);
        if let Class::Ask(cost) = frame.class() {
            assert_eq!(cost.payload, u64::from(blocks) * 4096, "{frame:?}");
            assert!(cost.bytes() <= Cost::MAX);
        }
    }
    for (ask, longest) in [
        ("seal", sealed(ENTRIES_MAX)),
        ("ask_fetch", content(vec![ENTRY; ENTRIES_MAX])),
        ("ask_list", listed(PAGE_MAX)),
        ("ask_fences", fences(PAGE_MAX)),
        ("mend_ask", named("mend_blocks")),
        ("read", named("value_newest")),
    ] {
        let Class::Ask(cost) = named(ask).0.class() else {
            panic!("{ask} is an ask");
        };
        // A head, and a short body, go without: the frames are counted.
        let longest = encode(&longest).len() as u64 + u64::from(longest.1) * 4096;
        assert!(longest <= cost.answer + 256, "{ask}: {longest}");
    }
}

fn has_golden_bytes(version: Version, told: &str) {
    let mut heard = String::new();
    for (name, (frame, blocks)) in all() {
        let mut bytes = Vec::new();
        match frame.encode(version, DISK, blocks, &mut bytes) {
            Ok(()) => {}
            Err(Unwritten::Newer(needs)) => {
                assert!(needs.since() > version && bytes.is_empty(), "{name}");
                continue;
            }
            Err(other) => panic!("{name}: {other}"),
        }
        let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        heard.push_str(&format!("{name} {line}\n"));
    }
    if std::env::var_os("SARSEN_REWRITE_STORIES").is_some_and(|value| value == "1") {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/fixtures");
        let path = format!("{folder}/version_{}.txt", version.number());
        return std::fs::write(path, heard).unwrap();
    }
    assert_eq!(heard, told);
}

#[test]
fn the_bytes_of_version_1_are_what_they_were() {
    has_golden_bytes(Version::One, include_str!("../fixtures/version_1.txt"));
}

#[test]
fn the_bytes_of_version_2_are_what_they_were() {
    has_golden_bytes(Version::Two, include_str!("../fixtures/version_2.txt"));
}

#[test]
fn what_both_versions_can_say_they_say_in_the_same_bytes() {
    let of_1 = include_str!("../fixtures/version_1.txt");
    let of_2: Vec<&str> = include_str!("../fixtures/version_2.txt").lines().collect();
    assert!(of_1.lines().count() > 30);
    for line in of_1.lines() {
        let (name, _) = line.split_once(' ').unwrap();
        let is_hinted = Feature::hinted(&named(name).0).is_some();
        assert_eq!(of_2.contains(&line), !is_hinted, "{line}");
    }
}

/// A frame that has no hint, and the same with one.
fn hinted() -> Vec<(Frame, Frame)> {
    let done = |room| Answer::Done { sequence: 8, room };
    let sealed = |window: Vec<Entry>| {
        move |room| {
            let window = window.clone();
            Answer::Sealed { window, room }
        }
    };
    let of = |answer: &dyn Fn(Room) -> Answer| {
        let [plain, low] = [Room::Ample, Room::Low].map(|room| Frame::Answer(HEADER, answer(room)));
        (plain, low)
    };
    let sealed = [vec![], vec![ENTRY; 3], vec![ENTRY; ENTRIES_MAX]].map(sealed);
    let sealed = sealed.iter().map(|of_room| of(of_room));
    std::iter::once(of(&done)).chain(sealed).collect()
}

#[test]
fn an_acknowledgement_goes_without_its_hint_to_who_has_no_word_for_it() {
    for (plain, low) in hinted() {
        assert_eq!(Feature::hinted(&plain), None);
        assert_eq!(Feature::hinted(&low), Some(Feature::Fits));
        let mut told = Vec::new();
        assert_eq!(low.encode(Version::One, DISK, 0, &mut told), Ok(()));
        assert!(
            told == encode(&(plain.clone(), 0)),
            "as if the disk were ample"
        );
        assert_eq!(read_as(Version::One, &told).unwrap().1, plain);
        // To who has a word for it, it is said.
        assert_eq!(sample(&encode(&(low.clone(), 0))).0, low);
    }
}

#[test]
fn a_hint_of_a_later_version_is_refused_by_the_reader() {
    for (_, low) in hinted() {
        let malformed = read_as(Version::One, &encode(&(low, 0))).unwrap_err();
        assert_eq!(malformed.field, "version");
    }
}

#[test]
fn what_a_later_version_brought_is_refused_to_the_writer_and_by_the_reader() {
    let mut refused = std::collections::BTreeSet::new();
    for (name, (frame, blocks)) in all() {
        let bytes = encode(&(frame.clone(), blocks));
        let mut out = vec![1];
        let written = frame.encode(Version::One, DISK, blocks, &mut out);
        match Feature::of(&frame) {
            None if Feature::hinted(&frame).is_some() => assert_eq!(written, Ok(()), "{name}"),
            None => {
                assert_eq!((written, &out[1..]), (Ok(()), &bytes[..]), "{name}");
                assert!(read_as(Version::One, &bytes).is_ok(), "{name}");
            }
            Some(needs) => {
                assert_eq!(
                    (written, &out[..]),
                    (Err(Unwritten::Newer(needs)), &[1][..])
                );
                let malformed = read_as(Version::One, &bytes).unwrap_err();
                refused.insert((needs, malformed.field));
            }
        }
    }
    let all = [(Feature::Mend, "kind"), (Feature::Confirm, "version")];
    for feature in Feature::ALL {
        assert!(refused.iter().any(|(of, _)| of == feature), "{feature:?}");
    }
    assert!(all.iter().all(|of| refused.contains(of)), "{refused:?}");
}

fn sealed(entries: usize) -> Sample {
    let window = vec![ENTRY; entries];
    (
        Frame::Answer(
            HEADER,
            Answer::Sealed {
                window,
                room: Room::Ample,
            },
        ),
        0,
    )
}

fn content(entries: Vec<Entry>) -> Sample {
    let (Frame::FillAnswer(header, FillAnswer::Content { at, content, .. }), blocks) =
        named("content_data")
    else {
        panic!("content is content");
    };
    let entries = entries.into_iter().map(|entry| (HEADER.range, entry));
    let answer = FillAnswer::Content {
        at,
        content,
        entries: entries.collect(),
    };
    (Frame::FillAnswer(header, answer), blocks)
}

fn fences(count: usize) -> Sample {
    let fences = (1..=count as u64).map(|range| (VolumeId(range), HEADER.epoch));
    let answer = FillAnswer::Fences {
        fences: fences.collect(),
        more: true,
    };
    (Frame::FillAnswer(FILL, answer), 0)
}

fn listed(count: usize) -> Sample {
    let chunks = (0..count as u64).map(|chunk| ChunkId {
        chunk: ChunkNo(chunk),
        ..AT
    });
    let answer = FillAnswer::Listed {
        chunks: chunks.collect(),
        more: true,
    };
    (Frame::FillAnswer(FILL, answer), 0)
}

fn holds(field: &'static str, most: usize, of: impl Fn(usize) -> Sample) {
    let bytes = encode(&of(most));
    assert!(bytes.len() <= HEAD_LEN + BODY_MAX, "{field}");
    assert_eq!(sample(&bytes), of(most), "{field}");
    let count = most + 1;
    let (frame, blocks) = of(count);
    let mut bytes = vec![1];
    let refused = frame.encode(Version::PRESENT, DISK, blocks, &mut bytes);
    let why = TooMany { field, count };
    assert_eq!(refused, Err(Unwritten::TooMany(why)));
    assert_eq!(bytes, [1]);
}

#[test]
fn the_longest_of_each_fits_a_body_and_one_more_is_refused_to_its_writer() {
    holds("entries", ENTRIES_MAX, sealed);
    holds("entries", ENTRIES_MAX, |count| content(vec![ENTRY; count]));
    holds("fences", PAGE_MAX, fences);
    holds("chunks", PAGE_MAX, listed);
}

#[test]
fn entries_without_blocks_are_not_sent() {
    let silent = Entry { blocks: 0, ..ENTRY };
    let told = content(vec![silent, ENTRY, silent]);
    assert_eq!(sample(&encode(&told)), content(vec![ENTRY]));
    let window = vec![silent; ENTRIES_MAX + 1];
    let told = (
        Frame::Answer(
            HEADER,
            Answer::Sealed {
                window,
                room: Room::Ample,
            },
        ),
        0,
    );
    assert_eq!(sample(&encode(&told)), sealed(0));
}

#[test]
#[should_panic(expected = "entries of content lie in its chunk")]
fn an_entry_of_another_chunk_is_not_written() {
    let at = ChunkId {
        chunk: ChunkNo(0),
        ..AT
    };
    encode(&content(vec![Entry { at, ..ENTRY }]));
}

#[test]
#[should_panic(expected = "payload belongs to its frame")]
fn content_without_its_payload_is_not_written() {
    encode(&(named("content_data").0, 0));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "what-is-written-can-be-read")]
fn a_session_above_its_version_is_not_written() {
    let header = FillHeader { session: 5, ..FILL };
    encode(&(Frame::FillAnswer(header, FillAnswer::NotNow), 0));
}
