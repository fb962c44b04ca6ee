//! What a link does not take, and for how long it waits.

use super::ends::{End, SMALL, place_of};
use super::frames::{DISK, HEADER, at, contents, done, fetch, mark, read, seal, value, write};
use crate::base::{BlockRun, DiskId, Time};
use crate::protocol::replication::fill::{Content, FillAnswer, FillHeader};
use crate::protocol::replication::{Answer, Asked, Message, Refusal, Room};
use crate::runtime::links::limits::Limits;
use crate::runtime::links::{Event, Refused, Why};
use crate::wire::{Credit, Feature, Frame, Unwritten, Version, set_number};
use std::collections::VecDeque;

/// Frames as a peer sends them that keeps no rule but the numbers.
#[derive(Default)]
struct Rogue {
    number: u32,
    bytes: VecDeque<u8>,
}

impl Rogue {
    fn put(&mut self, frame: &Frame, payload: &[u8]) -> &mut Rogue {
        let mut bytes = Vec::new();
        let blocks = (payload.len() / 4096) as u32;
        frame
            .encode(Version::PRESENT, DISK, blocks, &mut bytes)
            .unwrap();
        set_number(&mut bytes, self.number);
        self.number += 1;
        self.bytes.extend(bytes);
        self.bytes.extend(payload);
        self
    }

    /// What comes of it at an end.
    fn to(&mut self, end: &mut End) -> Option<Why> {
        while end.receive(&mut self.bytes, usize::MAX) > 0 {}
        end.link.why
    }
}

fn one() -> BlockRun {
    BlockRun::new(3, 1).unwrap()
}

/// An end that was granted plenty, and that has told what it grants.
fn granted(limits: Limits, rogue: &mut Rogue) -> End {
    let mut end = End::new(limits);
    end.flush();
    end.wire.clear();
    let credit = Credit {
        asks: 100,
        bytes: 100 << 20,
    };
    assert_eq!(rogue.put(&Frame::Credit(credit), &[]).to(&mut end), None);
    end
}

#[test]
fn more_asks_than_were_granted_end_the_link() {
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    for _ in 0..3 {
        assert_eq!(
            rogue
                .put(&write(1, at(1), one()), &contents(at(1), one()).0)
                .to(&mut end),
            None
        );
    }
    // The same question again gave its credit back, which was not told: it is not there yet.
    let why = rogue.put(&mark(), &[]).to(&mut end);
    assert_eq!(why, Some(Why::OverCredit));
    end.end();
}

#[test]
fn more_bytes_than_were_granted_end_the_link() {
    let mut rogue = Rogue::default();
    let limits = Limits {
        credit: Credit {
            asks: 100,
            bytes: Limits::LEAST_BYTES,
        },
        ..SMALL
    };
    let mut end = granted(limits, &mut rogue);
    assert_eq!(rogue.put(&fetch(1, at(1)), &[]).to(&mut end), None);
    let why = rogue.put(&fetch(2, at(1)), &[]).to(&mut end);
    assert_eq!(why, Some(Why::OverCredit));
    end.end();
}

#[test]
fn credit_that_is_taken_back_ends_the_link() {
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    let (asks, bytes) = (99, 200 << 20);
    let why = rogue
        .put(&Frame::Credit(Credit { asks, bytes }), &[])
        .to(&mut end);
    assert_eq!(why, Some(Why::CreditTakenBack));
    end.end();
}

#[test]
fn blocks_with_a_wrong_checksum_are_never_handed_out() {
    let good = contents(at(1), one()).0;
    for flip in [0, 1, 511, 2048, 4095] {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        let mut bad = good.clone();
        bad[flip] ^= 4;
        let why = rogue.put(&write(1, at(1), one()), &bad).to(&mut end);
        assert_eq!(why, Some(Why::Checksum));
        assert!(end.events.is_empty());
        end.end();
    }
    // Blocks of another place are wrong here.
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    let mut other = write(1, at(1), one());
    if let Frame::Message(_, Message::Change { at: of, .. }) = &mut other {
        *of = at(2);
    }
    assert_eq!(rogue.put(&other, &good).to(&mut end), Some(Why::Checksum));
    end.end();
}

#[test]
fn the_blocks_of_answers_are_checked_as_well() {
    let (of, run) = place_of(5);
    for flip in [None, Some(77)] {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        end.send(read(5, of, run)).unwrap();
        let mut blocks = contents(of, run).0;
        if let Some(flip) = flip {
            blocks[flip] ^= 1;
        }
        let why = rogue.put(&value(5, of, run), &blocks).to(&mut end);
        assert_eq!(why, flip.map(|_| Why::Checksum));
        assert_eq!(end.events.len(), usize::from(flip.is_none()));
        end.end();
    }
}

/// The content of a chunk with these blocks.
fn content(id: u64, of: crate::base::ChunkId, mask: u16) -> (Frame, Vec<u8>) {
    let header = FillHeader {
        pg: HEADER.pg,
        version: 4,
        session: 3,
        id,
    };
    let (mut all, mut crcs) = contents(of, BlockRun::new(0, 16).unwrap());
    for (place, crc) in crcs.iter_mut().enumerate() {
        if mask >> place & 1 == 0 {
            *crc = 0;
            all[place * 4096..][..4096].fill(9);
        }
    }
    let content = Content {
        stamp: Default::default(),
        data: mask,
        zeroes: 0,
        crcs,
    };
    let answer = FillAnswer::Content {
        at: of,
        content,
        entries: Vec::new(),
    };
    (Frame::FillAnswer(header, answer), all)
}

#[test]
fn of_a_filled_chunk_those_blocks_are_checked_that_are_data() {
    for (mask, flip, is_right) in [
        (0x0f0f, 0, false),
        (0x0f0f, 5 * 4096, true),
        (0x0f0f, 9 * 4096, false),
        (0xffff, 15 * 4096 + 9, false),
    ] {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        end.send(fetch(1, at(4))).unwrap();
        let (frame, mut all) = content(1, at(4), mask);
        all[flip] ^= 1;
        let why = rogue.put(&frame, &all).to(&mut end);
        assert_eq!(
            why,
            (!is_right).then_some(Why::Checksum),
            "{mask:#x} {flip}"
        );
        end.end();
    }
}

#[test]
fn an_answer_that_is_none_to_its_question_ends_the_link() {
    let (of, run) = place_of(5);
    // Fewer blocks than were asked for; none where not all is zeroes; another chunk; payload to a question that has none.
    let cases: [(Frame, Frame, usize); 4] = [
        (
            read(512, at(0), BlockRun::new(0, 2).unwrap()),
            value(512, at(0), BlockRun::new(0, 1).unwrap()),
            1,
        ),
        (read(5, of, run), value(5, of, run), 0),
        (fetch(1, at(4)), content(1, at(5), 1).0, 16),
        (
            Frame::FillAsk(
                FillHeader {
                    pg: HEADER.pg,
                    version: 4,
                    session: 3,
                    id: 1,
                },
                crate::protocol::replication::fill::FillAsk::Fences { after: None },
            ),
            content(1, at(5), 1).0,
            16,
        ),
    ];
    for (ask, answer, blocks) in cases {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        end.send(ask).unwrap();
        let why = rogue.put(&answer, &vec![0; blocks * 4096]).to(&mut end);
        assert_eq!(why, Some(Why::Mismatch), "{answer:?}");
        end.end();
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_read_and_its_payload_dropped() {
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    let (of, run) = place_of(0);
    assert_eq!(run.count(), 16);
    let blocks = contents(of, run).0;
    assert_eq!(rogue.put(&value(5, of, run), &blocks).to(&mut end), None);
    assert!(end.events.is_empty());
    assert_eq!(rogue.put(&done(8), &[]).to(&mut end), None);
    assert_eq!((end.link.unasked, end.events.len()), (2, 0));
    // What was given up is the same.
    end.send(read(256, of, run)).unwrap();
    let room = end.link.forget(&read(256, of, run).question(DISK).unwrap());
    crate::runtime::links::memory::Memory::release(&mut end.pool, room.unwrap().buf.id);
    assert_eq!(rogue.put(&value(256, of, run), &blocks).to(&mut end), None);
    assert_eq!((end.link.unasked, end.events.len()), (3, 0));
    // A mark is no question, and that it is refused is heard.
    let refused = Answer::Refused {
        what: Asked::Mark,
        why: Refusal::NoReplica,
    };
    let refused = Frame::Answer(HEADER, refused);
    assert_eq!(rogue.put(&refused, &[]).to(&mut end), None);
    assert_eq!((end.link.unasked, end.events.len()), (3, 1));
    end.end();
}

#[test]
fn a_frame_again_or_out_of_its_turn_ends_the_link() {
    for skip in [-1i32, 1, 5] {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        let expected = rogue.number;
        rogue.number = rogue.number.wrapping_add_signed(skip);
        let found = rogue.number;
        let why = rogue.put(&mark(), &[]).to(&mut end);
        assert_eq!(why, Some(Why::OutOfOrder { expected, found }));
        end.end();
    }
}

#[test]
fn what_is_longer_than_a_frame_may_be_ends_the_link_before_it_comes() {
    for (at, value) in [(8, 409_665u32), (12, 65_536 + 4096), (12, 100), (4, 77)] {
        let mut rogue = Rogue::default();
        let mut end = granted(SMALL, &mut rogue);
        let mut bytes = Vec::new();
        mark()
            .encode(Version::PRESENT, DISK, 0, &mut bytes)
            .unwrap();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        set_number(&mut bytes, rogue.number);
        rogue.bytes.extend(bytes);
        assert!(matches!(rogue.to(&mut end), Some(Why::Malformed(_))));
        end.end();
    }
}

#[test]
fn without_memory_the_link_waits_with_the_ask_and_goes_on_when_there_is_some() {
    let mut rogue = Rogue::default();
    let mut end = granted(Limits::USUAL, &mut rogue);
    end.pool.peers_max = 1;
    for n in 1..=3 {
        rogue.put(&write(n, at(n), one()), &contents(at(n), one()).0);
    }
    for n in 1..=3 {
        assert_eq!(rogue.to(&mut end), None);
        end.look();
        assert_eq!(end.owed.len(), n);
        assert_eq!(end.link.inbound.is_hungry(), n < 3);
        end.feed();
        assert_eq!(end.owed.len(), n, "there is no memory yet");
        end.let_go();
        end.feed();
    }
    assert!(rogue.bytes.is_empty() && !end.link.inbound.is_hungry());
    end.look();
    end.end();
}

#[test]
fn a_full_queue_refuses_asks_and_takes_answers() {
    let limits = Limits {
        waiting: 4,
        ..SMALL
    };
    let mut end = End::new(limits);
    for n in 0..4 {
        end.send(write(n + 1, at(1), one())).unwrap();
    }
    assert_eq!(end.send(write(9, at(1), one())), Err(Refused::Full));
    assert_eq!(end.send_with(done(1), None, None), Ok(()));
    let bytes = Limits {
        waiting_bytes: 3 * 4096,
        ..SMALL
    };
    let mut other = End::new(bytes);
    for n in 0..3 {
        other.send(write(n + 1, at(1), one())).unwrap();
    }
    assert_eq!(other.send(write(9, at(1), one())), Err(Refused::Full));
    assert_eq!(other.send(mark()), Ok(()));
    end.end();
    other.end();
    assert_eq!(end.send(mark()), Err(Refused::Down));
}

#[test]
fn who_does_not_read_its_answers_is_cut_off() {
    let limits = Limits {
        unsent_bytes: 1 << 20,
        ..SMALL
    };
    let mut end = End::new(limits);
    let (of, run) = place_of(0);
    let mut sent = 0;
    loop {
        let payload = end.pool.make(contents(of, run).0);
        if end.send_with(value(0, of, run), Some(payload), None) == Err(Refused::Down) {
            break;
        }
        sent += 1;
        end.begin_send(); // the kernel takes the first, and never ends
    }
    assert!((16..40).contains(&sent), "{sent}");
    assert_eq!(end.link.why, Some(Why::Slow));
    end.end();
}

#[test]
fn what_the_kernel_cannot_send_for_long_cuts_the_peer_off() {
    let mut end = End::new(SMALL);
    assert!(end.begin_send());
    let at = |seconds: u64| Time(end.now.0 + seconds * 1_000_000_000);
    let (soon, late) = (at(9), at(10));
    let mut events = VecDeque::new();
    end.link.expire(soon, &mut events);
    assert_eq!(end.link.why, None);
    end.link.expire(late, &mut events);
    assert_eq!(end.link.why, Some(Why::Slow));
    end.end();
}

#[test]
fn silence_is_told_once_where_something_was_asked_and_not_otherwise() {
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    let begun = end.now;
    let later = |end: &mut End, millis: u64| {
        end.now = Time(begun.0 + millis * 1_000_000);
        end.link.expire(end.now, &mut end.events);
        let told = end.events.iter();
        told.filter(|event| matches!(event, Event::Silent { .. }))
            .count()
    };
    assert_eq!(later(&mut end, 60_000), 0, "nothing was asked");
    end.send(mark()).unwrap();
    assert_eq!(later(&mut end, 70_000), 0, "a mark is not answered");
    end.send(write(1, at(1), one())).unwrap();
    end.flush();
    assert_eq!(later(&mut end, 70_900), 0);
    assert_eq!(later(&mut end, 71_000), 1);
    assert_eq!(later(&mut end, 79_000), 1, "once");
    rogue.put(&mark(), &[]).to(&mut end);
    assert_eq!(later(&mut end, 79_900), 1);
    assert_eq!(
        later(&mut end, 80_100),
        2,
        "again, after something was heard"
    );
    rogue.put(&done(1), &[]).to(&mut end);
    assert_eq!(later(&mut end, 99_000), 2, "all is answered");
    end.end();
}

#[test]
fn a_peer_that_grants_nothing_and_says_nothing_is_told_of() {
    let mut end = End::new(SMALL);
    end.flush();
    assert!(!end.link.is_waiting());
    let begun = end.now.0 + 5_000_000_000;
    end.now = Time(begun);
    end.send(write(1, at(1), one())).unwrap();
    assert!(end.link.outbound.is_waiting_for_credit());
    assert!(end.link.is_waiting(), "time matters to it");
    for (millis, told) in [(900, 0), (1_000, 1), (5_000, 1)] {
        end.now = Time(begun + millis * 1_000_000);
        end.link.expire(end.now, &mut end.events);
        assert_eq!(end.events.len(), told, "{millis}");
    }
    assert!(matches!(end.events[0], Event::Silent { since, .. } if since == Time(begun)));
    end.end();
}

#[test]
fn what_a_peer_has_no_word_for_is_refused_and_all_goes_on() {
    let mut end = End::new(SMALL);
    end.link.version = Version::One;
    let confirm = Frame::Message(HEADER, Message::Confirm { id: 1 });
    let newer = Refused::Unwritten(Unwritten::Newer(Feature::Confirm));
    assert_eq!(end.send(confirm), Err(newer));
    let confirmed = Frame::Answer(HEADER, Answer::Confirmed { id: 1 });
    assert_eq!(end.send_with(confirmed, None, None), Err(newer));
    assert_eq!(end.send(seal()), Ok(()));
    end.end();
}

#[test]
fn an_answer_gives_credit_back_once_it_is_sent_and_not_before() {
    let mut rogue = Rogue::default();
    let mut end = granted(SMALL, &mut rogue);
    assert_eq!(rogue.put(&seal(), &[]).to(&mut end), None);
    let window = Vec::new();
    let room = Room::Ample;
    let sealed = Frame::Answer(HEADER, Answer::Sealed { window, room });
    // Of another disk: it is not the answer.
    let other = crate::runtime::links::Outgoing::plain(DiskId(1), sealed.clone());
    end.link.send(end.now, other, &mut end.pool).unwrap();
    end.flush();
    assert!(!end.link.grant.is_whole());
    end.send_with(sealed, None, None).unwrap();
    assert!(end.begin_send() && !end.link.grant.is_whole());
    end.end_send();
    assert!(end.link.grant.is_whole());
    end.look();
    end.end();
}
