//! What a shelf promises, and what goes wrong with it.

use super::*;
use crate::base::{ChunkNo, FamilyId, LayerId};

const PG: PgId = PgId(1);
const RANGE: VolumeId = VolumeId(1);
const LIST: Operation = Operation::List {
    since: 0,
    after: None,
    most: 10,
};
const LIST_FROM_2: Operation = Operation::List {
    since: 1,
    after: None,
    most: 10,
};
const LATER: Time = Time(1 << 40);

fn chunk(n: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(n),
    }
}

fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(first, count).unwrap()
}

fn stamp(version: u32, sequence: u64) -> Stamp {
    Stamp {
        version,
        epoch: epoch(1),
        sequence,
    }
}

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

fn shelf() -> Shelf {
    Shelf::new(Prng::new(1), Manner::CALM)
}

fn write(n: u64, first: u32, value: u64, sequence: u64) -> Operation {
    let what = What::Data {
        run: run(first, 2),
        values: [value; 16],
    };
    Operation::Change {
        range: RANGE,
        at: chunk(n),
        what,
        stamp: stamp(1, sequence),
    }
}

/// What an operation comes to, alone.
fn ask(shelf: &mut Shelf, operation: Operation) -> Outcome {
    let op = shelf.ask(Time(0), PG, operation).unwrap();
    let done = shelf.poll(LATER).expect("it ends");
    assert_eq!(done.op, op);
    done.outcome
}

fn read(shelf: &mut Shelf, at: ChunkId) -> Content {
    let whole = BlockRun::WHOLE;
    match ask(shelf, Operation::Read { at, run: whole }) {
        Outcome::Value(content) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_answered_is_there_after_a_crash_and_marks_may_be_behind() {
    let mut shelf = shelf();
    let version = 3;
    let fence = Operation::Fence {
        fences: vec![(RANGE, epoch(1))],
        session: 0,
        version,
    };
    assert_eq!(ask(&mut shelf, fence), Outcome::Stored);
    for sequence in 1..=3 {
        assert_eq!(
            ask(&mut shelf, write(0, 4, sequence, sequence)),
            Outcome::Stored
        );
    }
    shelf.mark(PG, RANGE, epoch(1), 2);
    assert_eq!(shelf.kept().pg(PG).mark_of(RANGE), (epoch(1), 2));
    shelf.crash();
    let pg = shelf.kept().pg(PG);
    assert_eq!((pg.version, pg.epoch(RANGE)), (3, epoch(1)));
    assert_eq!(pg.mark_of(RANGE), (epoch(1), 0));
    let numbers = |pg: &Pg| -> Vec<u64> {
        let window = pg.window(RANGE).into_iter();
        window.map(|entry| entry.sequence).collect()
    };
    assert_eq!(numbers(pg), [1, 2, 3]);
    assert_eq!(pg.ranges().collect::<Vec<_>>(), [RANGE]);
    shelf.mark(PG, RANGE, epoch(1), 2);
    ask(&mut shelf, write(0, 0, 4, 4));
    shelf.crash();
    assert_eq!(
        numbers(shelf.kept().pg(PG)),
        [3, 4],
        "the mark went with the write"
    );
    let last = Entry {
        epoch: epoch(1),
        sequence: 4,
        at: chunk(0),
        blocks: 0b11,
        version: 1,
    };
    assert_eq!(shelf.kept().pg(PG).window(RANGE)[1], last);
    let content = read(&mut shelf, chunk(0));
    assert_eq!(
        content[3..7],
        [Block::Absent, Block::Data(3), Block::Data(3), Block::Absent]
    );
}

#[test]
fn an_operation_in_flight_at_a_crash_happened_as_a_whole_or_not_at_all() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let mut shelf = Shelf::new(Prng::new(seed), Manner::CALM);
        shelf.ask(Time(0), PG, write(0, 0, 7, 1)).unwrap();
        while shelf.poll(Time(15_000)).is_some() {}
        shelf.crash();
        assert_eq!(shelf.poll(LATER), None, "nobody is answered");
        let content = read(&mut shelf, chunk(0));
        assert_eq!(content[0], content[1]);
        seen.insert(content[0]);
        let entries = shelf.kept().pg(PG).window(RANGE).len();
        assert_eq!(
            entries == 1,
            content[0] == Block::Data(7),
            "one with its entry"
        );
    }
    assert_eq!(seen, BTreeSet::from([Block::Absent, Block::Data(7)]));
}

#[test]
fn what_the_newest_layer_does_not_have_is_read_from_the_layer_below() {
    let mut shelf = shelf();
    let above = ChunkId {
        layer: LayerId(2),
        ..chunk(0)
    };
    ask(&mut shelf, write(0, 0, 7, 1));
    shelf.put_layer(LayerId(2), LayerId(1));
    let what = What::Zero { run: run(0, 1) };
    let (range, stamp) = (RANGE, stamp(1, 2));
    let zero = Operation::Change {
        range,
        at: above,
        what,
        stamp,
    };
    assert_eq!(ask(&mut shelf, zero), Outcome::Stored);
    let content = read(&mut shelf, above);
    assert_eq!(content[..3], [Block::Zero, Block::Data(7), Block::Absent]);
    assert_eq!(read(&mut shelf, chunk(0))[0], Block::Data(7));
}

#[test]
fn a_replica_is_listed_fetched_filled_and_forgotten() {
    let (mut source, mut joiner) = (shelf(), shelf());
    ask(&mut source, write(0, 0, 7, 1));
    let (range, at) = (RANGE, chunk(1));
    let (what, stamp) = (What::ZeroChunks { count: 2 }, stamp(5, 2));
    ask(
        &mut source,
        Operation::Change {
            range,
            at,
            what,
            stamp,
        },
    );
    let newer = Outcome::Chunks {
        chunks: vec![chunk(1), chunk(2)],
        more: false,
    };
    assert_eq!(ask(&mut source, LIST_FROM_2), newer);
    let fetch = |n| Operation::Fetch { chunk: chunk(n) };
    let Outcome::Chunk(Some(fetched)) = ask(&mut source, fetch(1)) else {
        panic!("it is there");
    };
    assert_eq!((fetched.content, fetched.stamp), ([Block::Zero; 16], stamp));
    assert_eq!(ask(&mut source, fetch(9)), Outcome::Chunk(None));
    let fill = Operation::Fill {
        chunk: chunk(1),
        blocks: 0b11,
        content: Box::new(fetched.content),
        stamp,
        entries: Vec::new(),
    };
    assert_eq!(ask(&mut joiner, fill), Outcome::Stored);
    assert_eq!(
        read(&mut joiner, chunk(1))[..3],
        [Block::Zero, Block::Zero, Block::Absent]
    );
    assert_eq!(ask(&mut joiner, Operation::Forget), Outcome::Stored);
    assert_eq!(joiner.kept().chunks(), 0);
}

#[test]
fn damage_is_found_when_it_is_read_and_gone_when_it_is_written_over() {
    let mut shelf = shelf();
    assert_eq!(shelf.any_data(0), None);
    assert!(!shelf.rot(PG, chunk(0), 0) && !shelf.fail_chunk(PG, chunk(0)));
    ask(&mut shelf, write(0, 0, 7, 1));
    let (pg, at, block) = shelf.any_data(0).unwrap();
    assert!((pg, at) == (PG, chunk(0)) && block < 2);
    assert!(shelf.rot(PG, chunk(0), 1) && shelf.is_damaged(PG, chunk(0)));
    assert_eq!(shelf.tally.of(Fault::Rot), (1, 0));
    let of = |first| Operation::Read {
        at: chunk(0),
        run: run(first, 1),
    };
    assert!(matches!(ask(&mut shelf, of(0)), Outcome::Value(_)));
    let mismatch = Outcome::Failed(Failure::Mismatch);
    assert_eq!(ask(&mut shelf, of(1)), mismatch);
    assert_eq!(
        ask(&mut shelf, Operation::Fetch { chunk: chunk(0) }),
        mismatch
    );
    assert_eq!(shelf.tally.of(Fault::Rot), (1, 2));
    assert!(shelf.fail_chunk(PG, chunk(0)));
    assert_eq!(ask(&mut shelf, of(0)), Outcome::Failed(Failure::Error));
    assert!(shelf.take_found().len() > 2 && shelf.take_found().is_empty());
    ask(&mut shelf, write(0, 0, 8, 2));
    assert!(!shelf.is_damaged(PG, chunk(0)));
    assert_eq!(read(&mut shelf, chunk(0))[1], Block::Data(8));
}

#[test]
fn damage_is_mended_with_what_has_its_checksum_and_with_nothing_else() {
    let mut shelf = shelf();
    ask(&mut shelf, write(0, 0, 7, 1));
    assert!(shelf.fail_chunk(PG, chunk(0)) && shelf.rot(PG, chunk(0), 0));
    shelf.scrub();
    let found = shelf.take_found();
    assert_eq!(found.len(), 2);
    let mut what = MendAsk {
        at: chunk(0),
        blocks: 0b11,
        crcs: [0; 16],
    };
    let salvage = |what| Operation::Salvage {
        ask: what,
        gives: Gives::Matching,
    };
    let mend = |what, value| Operation::Mend {
        what,
        values: Box::new([value; 16]),
        takes: Takes::ByChecksum,
    };
    what.crcs[0] = 8;
    assert_eq!(ask(&mut shelf, mend(what, 8)), Outcome::Stored);
    assert!(shelf.is_damaged(PG, chunk(0)));
    (what.crcs[0], what.crcs[1]) = (7, 7);
    assert_eq!(
        ask(&mut shelf, salvage(what)),
        Outcome::Salvaged([None; 16])
    );
    assert_eq!(ask(&mut shelf, mend(what, 7)), Outcome::Stored);
    assert!(!shelf.is_damaged(PG, chunk(0)));
    let Outcome::Salvaged(found) = ask(&mut shelf, salvage(what)) else {
        panic!("it salvages");
    };
    assert_eq!(found[..3], [Some(7), Some(7), None]);
}

#[test]
fn a_disk_that_is_gone_fails_everything_until_an_empty_one_is_in_its_place() {
    let mut shelf = shelf();
    ask(&mut shelf, write(0, 0, 7, 1));
    shelf.ask(Time(0), PG, write(0, 0, 8, 2)).unwrap();
    shelf.lose();
    let gone = Outcome::Failed(Failure::Gone);
    assert_eq!(shelf.poll(LATER).unwrap().outcome, gone);
    assert_eq!(ask(&mut shelf, LIST), gone);
    shelf.replace();
    assert_eq!(
        ask(&mut shelf, LIST),
        Outcome::Chunks {
            chunks: Vec::new(),
            more: false
        }
    );
    shelf.open(shelf.kept().incarnation + 1);
    assert_eq!(shelf.kept().incarnation, 1);
}

#[test]
fn a_disk_comes_back_as_it_was_with_an_old_incarnation() {
    let mut shelf = shelf();
    assert!(!shelf.age());
    shelf.open(shelf.kept().incarnation + 1);
    assert_eq!(shelf.kept().incarnation, 1);
    ask(&mut shelf, write(0, 0, 7, 1));
    shelf.remember();
    shelf.open(shelf.kept().incarnation + 1);
    assert_eq!(shelf.kept().incarnation, 2);
    assert!(!shelf.age(), "nobody can know that");
    shelf.remember();
    shelf.recorded();
    shelf.remember();
    assert!(!shelf.age());
    shelf.open(3);
    shelf.recorded();
    ask(&mut shelf, write(0, 0, 8, 2));
    assert!(shelf.age());
    assert_eq!(read(&mut shelf, chunk(0))[0], Block::Data(7));
    shelf.open(shelf.kept().incarnation + 1);
    assert_eq!(
        shelf.kept().incarnation,
        3,
        "a number that was given before"
    );
    assert_eq!(shelf.tally.of(Fault::DiskOld), (1, 1));
}

#[test]
fn what_was_done_to_a_replica_counts_until_it_is_forgotten_or_absolved() {
    let other = PgId(2);
    let struck = || {
        let mut shelf = shelf();
        shelf.tear(PG);
        shelf.tear(other);
        shelf
    };
    let mut forgotten = struck();
    assert_eq!(ask(&mut forgotten, LIST), Outcome::Failed(Failure::Torn));
    assert!(forgotten.is_struck(PG));
    assert_eq!(ask(&mut forgotten, Operation::Forget), Outcome::Stored);
    assert!(!forgotten.is_struck(PG) && forgotten.is_struck(other));
    let mut replaced = struck();
    replaced.lose();
    assert!(replaced.is_struck(PG));
    replaced.replace();
    assert!(
        replaced.is_struck(PG),
        "what was said of it may take effect yet"
    );
    replaced.absolve(PG);
    assert!(!replaced.is_struck(PG));
    // It is still damaged, whatever the manager says.
    let mut absolved = struck();
    absolved.absolve(PG);
    assert!(absolved.is_struck(PG));
    // A lost write is seen by nobody, and made good by whoever fills it anew.
    let mut lost = shelf();
    assert_eq!(ask(&mut lost, write(1, 0, 7, 1)), Outcome::Stored);
    assert!(!lost.is_struck(PG));
    lost.lose_change(PG, chunk(1));
    assert!(lost.is_struck(PG));
    lost.absolve(PG);
    assert!(!lost.is_struck(PG));
}

#[test]
fn a_full_disk_takes_overwrites_only() {
    let manner = Manner {
        room: 1,
        ..Manner::CALM
    };
    let mut shelf = Shelf::new(Prng::new(1), manner);
    assert_eq!(ask(&mut shelf, write(0, 0, 7, 1)), Outcome::Stored);
    assert_eq!(
        ask(&mut shelf, write(1, 0, 7, 2)),
        Outcome::Failed(Failure::NoSpace)
    );
    assert_eq!(ask(&mut shelf, write(0, 8, 7, 3)), Outcome::Stored);
}

#[test]
fn slow_operations_are_overtaken_and_too_many_are_refused() {
    let manner = Manner {
        slow_one_in: 3,
        ..Manner::CALM
    };
    let mut shelf = Shelf::new(Prng::new(1), manner);
    let asked = (0..).take_while(|_| shelf.ask(Time(0), PG, LIST).is_ok());
    assert_eq!(asked.count(), FLYING_MAX);
    let mut done = Vec::new();
    while let Some(next) = shelf.next() {
        done.extend(std::iter::from_fn(|| shelf.poll(next)).map(|done| done.op));
    }
    assert_eq!(done.len(), FLYING_MAX);
    assert!(!done.is_sorted());
    assert!(shelf.tally.of(Fault::DiskSlow).1 > 1_000);
    shelf.heal();
    shelf.ask(Time(0), PG, LIST).unwrap();
    assert!(shelf.poll(Time(40_000)).is_some());
}
