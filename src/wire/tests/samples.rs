//! Frames: one of each, and any number of random ones.

use crate::base::{
    BlockRun, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, PgId, Prng, Stamp, VolumeId,
};
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader, PAGE_MAX};
use crate::protocol::replication::{
    Answer, Asked, Change, Entry, Header, Message, Refusal, Room, Takes,
};
use crate::protocol::scrub::compare::{Below, CompareAnswer, CompareHeader, Motion, Summary};
use crate::protocol::scrub::{MendAnswer, MendAsk, MendHeader};
use crate::wire::{Credit, Frame};
use std::collections::BTreeSet;

pub const HEADER: Header = Header {
    range: VolumeId(0x1122_3344_5566_7788),
    pg: PgId(9),
    epoch: Epoch {
        generation: 1,
        site: 2,
        host: 3,
    },
    version: 4,
    session: 3,
    mark: 5,
};
pub const FILL: FillHeader = FillHeader {
    pg: PgId(9),
    version: 4,
    session: 3,
    id: 0x8877_6655_4433_2211,
};
pub const MEND: MendHeader = MendHeader {
    pg: PgId(9),
    asker: DiskId(0x0a0b_0c0d),
    id: FILL.id,
};
pub const COMPARE: CompareHeader = CompareHeader {
    pg: PgId(9),
    version: 4,
    asker: MEND.asker,
    life: 0x1122_3344_5566_7788,
    id: FILL.id,
};
pub const AT: ChunkId = ChunkId {
    family: FamilyId(6),
    layer: LayerId(7),
    chunk: ChunkNo(63),
};
pub const ENTRY: Entry = Entry {
    epoch: HEADER.epoch,
    sequence: 8,
    at: AT,
    blocks: 0x8001,
    version: 4,
};
pub const STAMP: Stamp = Stamp {
    version: 4,
    epoch: HEADER.epoch,
    sequence: 8,
};
const CRCS: [u32; 16] = {
    let mut crcs = [0; 16];
    crcs[0] = 0xaabb_ccdd;
    crcs[1] = 0x0102_0304;
    crcs
};

/// A frame with the blocks of payload that belong to it.
pub type Sample = (Frame, u32);

fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(first, count).unwrap()
}

/// One of each, by name.
pub fn all() -> Vec<(&'static str, Sample)> {
    let mut all = messages();
    all.extend(answers());
    all.extend(asks());
    all.extend(fills());
    all.extend(mends());
    all.extend(compares());
    let (asks, bytes) = (1024, 4 << 20);
    all.push(("credit", (Frame::Credit(Credit { asks, bytes }), 0)));
    all
}

/// The sample of that name.
pub fn named(name: &str) -> Sample {
    let found = all().into_iter().find(|(of, _)| *of == name);
    found.unwrap_or_else(|| panic!("no sample {name}")).1
}

fn messages() -> Vec<(&'static str, Sample)> {
    let change = |change| Message::Change {
        sequence: 8,
        at: AT,
        change,
    };
    let write = Change::Write {
        run: run(3, 2),
        crcs: CRCS,
    };
    let read = Message::Read {
        id: 10,
        at: AT,
        run: run(0, 16),
    };
    let of = |message, blocks| (Frame::Message(HEADER, message), blocks);
    vec![
        ("write", of(change(write), 2)),
        ("zero", of(change(Change::Zero { run: run(15, 1) }), 0)),
        (
            "zero_chunks",
            of(change(Change::ZeroChunks { count: 1 }), 0),
        ),
        ("read", of(read, 0)),
        ("mark", of(Message::Mark, 0)),
        ("seal", of(Message::Seal, 0)),
        ("confirm", of(Message::Confirm { id: 10 }, 0)),
        ("fits", of(Message::Fits { id: 10, at: AT }, 0)),
    ]
}

fn answers() -> Vec<(&'static str, Sample)> {
    let value = |newest| Answer::Value {
        id: 10,
        newest,
        crcs: CRCS,
        zeroes: 0x00f0,
    };
    let sealed_of = |entries, room| Answer::Sealed {
        window: vec![ENTRY; entries],
        room,
    };
    let sealed = |entries| sealed_of(entries, Room::Ample);
    let done = |room| Answer::Done { sequence: 8, room };
    let refused = |what, why| Answer::Refused { what, why };
    let fits = |takes, room| Answer::Fits {
        id: 10,
        takes,
        room,
    };
    let change = Asked::Change { sequence: 8 };
    let of = |answer, blocks| (Frame::Answer(HEADER, answer), blocks);
    vec![
        ("done", of(done(Room::Ample), 0)),
        ("done_low", of(done(Room::Low), 0)),
        ("fits_nothing", of(fits(Takes::Nothing, Room::Low), 0)),
        ("fits_space", of(fits(Takes::Space, Room::Ample), 0)),
        ("value_settled", of(value(None), 2)),
        ("value_newest", of(value(Some((HEADER.epoch, 8))), 16)),
        ("sealed_empty", of(sealed(0), 0)),
        ("sealed", of(sealed(3), 0)),
        ("sealed_low", of(sealed_of(1, Room::Low), 0)),
        (
            "refused_epoch",
            of(refused(change, Refusal::Epoch(HEADER.epoch)), 0),
        ),
        (
            "refused_version",
            of(refused(Asked::Read { id: 10 }, Refusal::Version(5)), 0),
        ),
        ("refused_busy", of(refused(Asked::Mark, Refusal::Busy), 0)),
        (
            "refused_failed",
            of(refused(Asked::Seal, Refusal::Failed), 0),
        ),
        (
            "refused_no_replica",
            of(refused(Asked::Seal, Refusal::NoReplica), 0),
        ),
        ("refused_session", of(refused(change, Refusal::Session), 0)),
        ("confirmed", of(Answer::Confirmed { id: 10 }, 0)),
        (
            "refused_confirm",
            of(refused(Asked::Confirm { id: 10 }, Refusal::Version(5)), 0),
        ),
        (
            "refused_fits",
            of(refused(Asked::Fits { id: 10 }, Refusal::Busy), 0),
        ),
    ]
}

fn asks() -> Vec<(&'static str, Sample)> {
    let of = |ask| (Frame::FillAsk(FILL, ask), 0);
    let list = |after| FillAsk::List { since: 2, after };
    vec![
        ("ask_fences", of(FillAsk::Fences { after: None })),
        (
            "ask_fences_after",
            of(FillAsk::Fences {
                after: Some(HEADER.range),
            }),
        ),
        ("ask_list", of(list(None))),
        ("ask_list_after", of(list(Some(AT)))),
        ("ask_fetch", of(FillAsk::Fetch { at: AT })),
    ]
}

fn mends() -> Vec<(&'static str, Sample)> {
    let of = |blocks| MendAsk {
        at: AT,
        blocks,
        crcs: CRCS,
    };
    let none = MendAsk {
        crcs: [0; 16],
        ..of(0)
    };
    let answer = |answer, blocks| (Frame::MendAnswer(MEND, answer), blocks);
    vec![
        ("mend_ask", (Frame::MendAsk(MEND, of(0b11)), 0)),
        ("mend_none", answer(MendAnswer::Blocks(none), 0)),
        ("mend_blocks", answer(MendAnswer::Blocks(of(0b11)), 16)),
        ("mend_not_now", answer(MendAnswer::NotNow, 0)),
    ]
}

fn compares() -> Vec<(&'static str, Sample)> {
    let held = |data, zeroes, digest, motion| CompareAnswer::Held {
        summary: Summary {
            stamp: STAMP,
            below: match zeroes {
                0 => Below::Nothing,
                _ => Below::Layers,
            },
            data,
            zeroes,
            digest,
        },
        motion,
    };
    let answer = |answer| (Frame::CompareAnswer(COMPARE, answer), 0);
    vec![
        ("compare_ask", (Frame::CompareAsk(COMPARE, AT), 0)),
        (
            "compare_held",
            answer(held(0b11, 0xf0, 0xaabb_ccdd, Motion::Moving)),
        ),
        ("compare_zeroes", answer(held(0, 0xffff, 0, Motion::Quiet))),
        (
            "compare_nothing",
            answer(CompareAnswer::Nothing {
                below: Below::Layers,
                forgotten: 3,
            }),
        ),
        ("compare_not_now", answer(CompareAnswer::NotNow)),
    ]
}

fn fills() -> Vec<(&'static str, Sample)> {
    let fence = |range| (VolumeId(range), HEADER.epoch);
    let place = |chunk| ChunkId {
        chunk: ChunkNo(chunk),
        ..AT
    };
    let content = |data, zeroes, entries| FillAnswer::Content {
        at: AT,
        content: Content {
            stamp: STAMP,
            data,
            zeroes,
            crcs: CRCS.map(|crc| if data == 0 { 0 } else { crc }),
        },
        entries: vec![(HEADER.range, ENTRY); entries],
    };
    let fences = |fences: Vec<_>, more| FillAnswer::Fences { fences, more };
    let listed = |chunks: Vec<_>, more| FillAnswer::Listed { chunks, more };
    let of = |answer, blocks| (Frame::FillAnswer(FILL, answer), blocks);
    vec![
        ("fences_empty", of(fences(Vec::new(), false), 0)),
        ("fences", of(fences(vec![fence(1), fence(2)], true), 0)),
        ("listed_empty", of(listed(Vec::new(), false), 0)),
        ("listed", of(listed(vec![place(62), place(63)], true), 0)),
        ("content_absent", of(content(0, 0, 0), 0)),
        ("content_zeroes", of(content(0, 0xffff, 1), 0)),
        ("content_data", of(content(0x0003, 0x00f0, 2), 16)),
        ("version", of(FillAnswer::Version(5), 0)),
        ("not_now", of(FillAnswer::NotNow, 0)),
    ]
}

/// A random frame that can be.
pub fn any(prng: &mut Prng) -> Sample {
    match prng.below(9) {
        0 => any_message(prng),
        1 => any_answer(prng),
        8 => {
            let (asks, bytes) = (word(prng), word(prng));
            (Frame::Credit(Credit { asks, bytes }), 0)
        }
        6 => (
            Frame::CompareAsk(any_compare_header(prng), any_place(prng)),
            0,
        ),
        7 => any_compare_answer(prng),
        4 => (Frame::MendAsk(any_mend_header(prng), any_mend(prng, 1)), 0),
        5 => any_mend_answer(prng),
        2 => (Frame::FillAsk(any_fill_header(prng), any_ask(prng)), 0),
        _ => any_fill(prng),
    }
}

/// Numbers at the ends of their range come as often as those between.
fn word(prng: &mut Prng) -> u64 {
    match prng.below(4) {
        0 => 0,
        1 => u64::MAX,
        2 => prng.below(9),
        _ => prng.next_u64(),
    }
}

fn half(prng: &mut Prng) -> u32 {
    word(prng) as u32
}

fn any_epoch(prng: &mut Prng) -> Epoch {
    Epoch {
        generation: half(prng),
        site: half(prng),
        host: half(prng),
    }
}

fn any_place(prng: &mut Prng) -> ChunkId {
    ChunkId {
        family: FamilyId(word(prng)),
        layer: LayerId(word(prng)),
        chunk: ChunkNo(word(prng) % (1 << 38)),
    }
}

fn any_run(prng: &mut Prng) -> BlockRun {
    let first = prng.below(16) as u32;
    run(first, prng.between(1, u64::from(16 - first)) as u32)
}

fn any_header(prng: &mut Prng) -> Header {
    let version = half(prng);
    Header {
        range: VolumeId(word(prng)),
        pg: PgId(half(prng)),
        epoch: any_epoch(prng),
        version,
        session: half(prng).min(version),
        mark: word(prng),
    }
}

fn any_fill_header(prng: &mut Prng) -> FillHeader {
    let version = half(prng).max(1);
    FillHeader {
        pg: PgId(half(prng)),
        version,
        session: half(prng).clamp(1, version),
        id: word(prng),
    }
}

fn any_mend_header(prng: &mut Prng) -> MendHeader {
    MendHeader {
        pg: PgId(half(prng)),
        asker: DiskId(half(prng)),
        id: word(prng),
    }
}

fn any_compare_header(prng: &mut Prng) -> CompareHeader {
    CompareHeader {
        pg: PgId(half(prng)),
        version: half(prng),
        asker: DiskId(half(prng)),
        life: word(prng),
        id: word(prng),
    }
}

fn any_compare_answer(prng: &mut Prng) -> Sample {
    let header = any_compare_header(prng);
    let answer = match prng.below(4) {
        0 => CompareAnswer::NotNow,
        1 => CompareAnswer::Nothing {
            below: match prng.one_in(2) {
                true => Below::Nothing,
                false => Below::Layers,
            },
            forgotten: half(prng),
        },
        _ => {
            let data = word(prng) as u16;
            let (below, zeroes) = match prng.one_in(2) {
                true => (Below::Nothing, 0),
                false => (Below::Layers, word(prng) as u16 & !data),
            };
            CompareAnswer::Held {
                summary: Summary {
                    stamp: Stamp {
                        version: half(prng),
                        epoch: any_epoch(prng),
                        sequence: word(prng),
                    },
                    below,
                    data,
                    zeroes,
                    digest: if data == 0 { 0 } else { half(prng) },
                },
                motion: match prng.one_in(2) {
                    true => Motion::Quiet,
                    false => Motion::Moving,
                },
            }
        }
    };
    (Frame::CompareAnswer(header, answer), 0)
}

fn any_mend(prng: &mut Prng, least: u16) -> MendAsk {
    let blocks = prng.next_u64() as u16 & word(prng) as u16 | least;
    MendAsk {
        at: any_place(prng),
        blocks,
        crcs: any_crcs(prng, blocks),
    }
}

fn any_mend_answer(prng: &mut Prng) -> Sample {
    let (header, found) = (any_mend_header(prng), any_mend(prng, 0));
    let (answer, blocks) = match prng.one_in(4) {
        true => (MendAnswer::NotNow, 0),
        false => (
            MendAnswer::Blocks(found),
            if found.blocks == 0 { 0 } else { 16 },
        ),
    };
    (Frame::MendAnswer(header, answer), blocks)
}

fn any_crcs(prng: &mut Prng, blocks: u16) -> [u32; 16] {
    std::array::from_fn(|block| match blocks & (1 << block) {
        0 => 0,
        _ => half(prng),
    })
}

fn any_message(prng: &mut Prng) -> Sample {
    let (sequence, at) = (word(prng).max(1), any_place(prng));
    let run = any_run(prng);
    let first_crcs = (1u32 << run.count()) - 1;
    let (change, blocks) = match prng.below(8) {
        0 => {
            let crcs = any_crcs(prng, first_crcs as u16);
            (Change::Write { run, crcs }, run.count())
        }
        1 => (Change::Zero { run }, 0),
        2 => {
            let count = prng.between(1, 64 - at.chunk.in_extent() as u64) as u32;
            (Change::ZeroChunks { count }, 0)
        }
        other => {
            let id = word(prng);
            let message = match other {
                3 => Message::Read { id, at, run },
                4 => Message::Mark,
                5 => Message::Confirm { id },
                6 => Message::Fits { id, at },
                _ => Message::Seal,
            };
            return (Frame::Message(any_header(prng), message), 0);
        }
    };
    let message = Message::Change {
        sequence,
        at,
        change,
    };
    (Frame::Message(any_header(prng), message), blocks)
}

fn any_entry(prng: &mut Prng, at: ChunkId) -> Entry {
    Entry {
        epoch: any_epoch(prng),
        sequence: word(prng).max(1),
        at,
        blocks: (prng.next_u64() as u16).max(1),
        version: half(prng),
    }
}

fn any_answer(prng: &mut Prng) -> Sample {
    let mut blocks = 0;
    let room = any_room(prng);
    let answer = match prng.below(6) {
        4 => Answer::Confirmed { id: word(prng) },
        0 => Answer::Done {
            sequence: word(prng).max(1),
            room,
        },
        1 => {
            blocks = prng.below(17) as u32;
            let newest = (any_epoch(prng), word(prng).max(1));
            Answer::Value {
                id: word(prng),
                newest: prng.one_in(2).then_some(newest),
                crcs: any_crcs(prng, u16::MAX),
                zeroes: prng.next_u64() as u16,
            }
        }
        2 => {
            let entries = 0..prng.below(5);
            let window = entries.map(|_| {
                let at = any_place(prng);
                any_entry(prng, at)
            });
            Answer::Sealed {
                window: window.collect(),
                room,
            }
        }
        3 => Answer::Fits {
            id: word(prng),
            takes: match prng.one_in(2) {
                true => Takes::Nothing,
                false => Takes::Space,
            },
            room,
        },
        _ => any_refused(prng),
    };
    (Frame::Answer(any_header(prng), answer), blocks)
}

fn any_room(prng: &mut Prng) -> Room {
    match prng.one_in(2) {
        true => Room::Ample,
        false => Room::Low,
    }
}

fn any_refused(prng: &mut Prng) -> Answer {
    let what = match prng.below(6) {
        4 => Asked::Confirm { id: word(prng) },
        0 => Asked::Change {
            sequence: word(prng).max(1),
        },
        1 => Asked::Read { id: word(prng) },
        2 => Asked::Mark,
        3 => Asked::Fits { id: word(prng) },
        _ => Asked::Seal,
    };
    let why = match prng.below(6) {
        0 => Refusal::Epoch(any_epoch(prng)),
        1 => Refusal::Version(half(prng)),
        2 => Refusal::Session,
        3 => Refusal::Busy,
        4 => Refusal::Failed,
        _ => Refusal::NoReplica,
    };
    Answer::Refused { what, why }
}

fn any_ask(prng: &mut Prng) -> FillAsk {
    let (at, range) = (any_place(prng), VolumeId(word(prng)));
    let is_some = prng.one_in(2);
    match prng.below(3) {
        0 => FillAsk::Fences {
            after: is_some.then_some(range),
        },
        1 => FillAsk::List {
            since: half(prng),
            after: is_some.then_some(at),
        },
        _ => FillAsk::Fetch { at },
    }
}

/// Mostly short, now and then as long as it can be.
fn any_count(prng: &mut Prng) -> usize {
    match prng.one_in(16) {
        true => PAGE_MAX,
        false => prng.below(6) as usize,
    }
}

fn any_fill(prng: &mut Prng) -> Sample {
    let mut blocks = 0;
    let answer = match prng.below(5) {
        0 => {
            let ranges = (0..any_count(prng)).map(|_| prng.next_u64());
            let ranges: BTreeSet<u64> = ranges.collect();
            let fences = ranges.into_iter().map(|of| (VolumeId(of), any_epoch(prng)));
            let fences: Vec<_> = fences.collect();
            let more = !fences.is_empty() && prng.one_in(2);
            FillAnswer::Fences { fences, more }
        }
        1 => {
            let chunks = (0..any_count(prng)).map(|_| any_place(prng).into());
            let chunks: BTreeSet<crate::protocol::replication::fill::Place> = chunks.collect();
            let chunks: Vec<ChunkId> = chunks.into_iter().map(ChunkId::from).collect();
            let more = !chunks.is_empty() && prng.one_in(2);
            FillAnswer::Listed { chunks, more }
        }
        2 => {
            let data = prng.next_u64() as u16 & word(prng) as u16;
            blocks = if data == 0 { 0 } else { 16 };
            let at = any_place(prng);
            let entries = (0..prng.below(4)).map(|_| (VolumeId(word(prng)), any_entry(prng, at)));
            FillAnswer::Content {
                at,
                entries: entries.collect(),
                content: Content {
                    stamp: Stamp {
                        version: half(prng),
                        epoch: any_epoch(prng),
                        sequence: word(prng),
                    },
                    data,
                    zeroes: prng.next_u64() as u16 & !data,
                    crcs: any_crcs(prng, data),
                },
            }
        }
        3 => FillAnswer::Version(half(prng)),
        _ => FillAnswer::NotNow,
    };
    (Frame::FillAnswer(any_fill_header(prng), answer), blocks)
}
