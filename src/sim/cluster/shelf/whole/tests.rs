//! A shelf with a whole store does what one without does.

use super::*;
use crate::base::{BlockRun, ChunkNo};
use crate::protocol::scrub::MendAsk;
use crate::sim::cluster::shelf::{Block, Content, Gives, Shelf, Takes, What};

const PG: PgId = PgId(1);
const RANGE: VolumeId = VolumeId(1);
const MANNER: Manner = Manner {
    took_us: 20,
    slow_one_in: 0,
    room: usize::MAX,
    reserve: 0,
};

fn chunk(layer: u64, n: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(layer),
        chunk: ChunkNo(n),
    }
}

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

/// Fenced under version 1 and epoch 1, with a layer over another.
fn shelf() -> Shelf {
    let mut shelf = Shelf::whole(Prng::new(1), MANNER, Breaks::NONE);
    shelf.put_layer(LayerId(2), LayerId(1));
    let fence = Operation::Fence {
        version: 1,
        session: 0,
        fences: vec![(RANGE, epoch(1))],
    };
    assert_eq!(ask(&mut shelf, fence), Outcome::Stored);
    shelf
}

fn ask(shelf: &mut Shelf, operation: Operation) -> Outcome {
    let op = shelf.ask(Time(1), PG, operation).unwrap();
    loop {
        let at = shelf.next().expect("it ends");
        if let Some(done) = shelf.poll(at) {
            assert_eq!(done.op, op);
            return done.outcome;
        }
    }
}

fn write(shelf: &mut Shelf, at: ChunkId, run: BlockRun, value: u64, sequence: u64) {
    let change = Operation::Change {
        range: RANGE,
        at,
        what: What::Data {
            run,
            values: [value; 16],
        },
        stamp: crate::base::Stamp {
            version: 1,
            epoch: epoch(1),
            sequence,
        },
    };
    assert_eq!(ask(shelf, change), Outcome::Stored);
}

fn read(shelf: &mut Shelf, at: ChunkId) -> Result<Content, Failure> {
    let run = BlockRun::WHOLE;
    match ask(shelf, Operation::Read { at, run }) {
        Outcome::Value(content) => Ok(content),
        Outcome::Failed(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Until everything is in its slot.
fn rest(shelf: &mut Shelf) {
    while let Some(at) = shelf.next() {
        assert!(shelf.poll(at).is_none());
    }
}

#[test]
fn what_was_answered_is_read_through_layers_before_and_after_a_power_cut() {
    let mut shelf = shelf();
    let run = |first, count| BlockRun::new(first, count).unwrap();
    write(&mut shelf, chunk(1, 0), BlockRun::WHOLE, 7, 1);
    write(&mut shelf, chunk(2, 0), run(2, 3), 9, 2);
    let mut expected = [Block::Data(7); 16];
    expected[2..5].fill(Block::Data(9));
    for _ in 0..2 {
        assert_eq!(read(&mut shelf, chunk(2, 0)), Ok(expected));
        let kept = shelf.kept().pg(PG);
        assert_eq!(kept.block(chunk(2, 0), 3), Block::Data(9));
        assert_eq!(kept.window(RANGE).len(), 2);
        assert_eq!((kept.version, kept.epoch(RANGE)), (1, epoch(1)));
        shelf.crash();
    }
    shelf.mark(PG, RANGE, epoch(1), 1);
    assert_eq!(shelf.kept().pg(PG).window(RANGE).len(), 1);
    assert_eq!(ask(&mut shelf, Operation::Forget), Outcome::Stored);
    assert!(shelf.kept().pgs.is_empty());
}

#[test]
fn rot_is_found_by_a_read_told_by_its_checksum_and_mended() {
    let mut shelf = shelf();
    let at = chunk(1, 0);
    write(&mut shelf, at, BlockRun::WHOLE, 7 << 32 | 5, 1);
    rest(&mut shelf);
    assert!(shelf.rot(PG, at, 3) && shelf.is_damaged(PG, at));
    assert_eq!(read(&mut shelf, at), Err(Failure::Error));
    assert_eq!(shelf.take_found(), [(PG, at, 3, 5)]);
    let mut what = MendAsk {
        at,
        blocks: 1 << 3 | 1 << 4,
        crcs: [0; 16],
    };
    (what.crcs[3], what.crcs[4]) = (5, 5);
    let gives = Gives::Matching;
    let Outcome::Salvaged(found) = ask(&mut shelf, Operation::Salvage { ask: what, gives }) else {
        panic!("it is salvaged");
    };
    assert_eq!((found[3], found[4]), (None, Some(7 << 32 | 5)));
    let mend = Operation::Mend {
        what,
        values: Box::new([7 << 32 | 5; 16]),
        takes: Takes::ByChecksum,
    };
    assert_eq!(ask(&mut shelf, mend), Outcome::Stored);
    assert_eq!(read(&mut shelf, at), Ok([Block::Data(7 << 32 | 5); 16]));
    assert!(!shelf.is_damaged(PG, at));
}

#[test]
fn a_disk_that_comes_back_old_or_new_says_so_by_its_openings() {
    let mut shelf = shelf();
    shelf.open(3);
    shelf.recorded();
    write(&mut shelf, chunk(1, 0), BlockRun::WHOLE, 7, 1);
    shelf.remember();
    shelf.crash();
    shelf.open(5);
    shelf.recorded();
    write(&mut shelf, chunk(1, 0), BlockRun::WHOLE, 8, 2);
    assert!(shelf.age());
    assert_eq!((shelf.kept().incarnation, shelf.kept().recorded), (3, 3));
    assert_eq!(read(&mut shelf, chunk(1, 0)), Ok([Block::Data(7); 16]));
    shelf.lose();
    assert_eq!(read(&mut shelf, chunk(1, 0)), Err(Failure::Gone));
    shelf.replace();
    assert_eq!((shelf.kept().incarnation, shelf.kept().recorded), (0, 0));
    assert!(shelf.kept().pgs.is_empty());
}

#[test]
fn what_waits_for_its_layer_ends_when_the_disk_is_gone() {
    let mut shelf = shelf();
    shelf.put_layer(LayerId(3), LayerId(1));
    let run = BlockRun::WHOLE;
    for n in 0..8 {
        let read = Operation::Read {
            at: chunk(3, n),
            run,
        };
        shelf.ask(Time(1), PG, read).unwrap();
    }
    shelf.lose();
    let mut ended = 0;
    for _ in 0..10_000 {
        let Some(at) = shelf.next() else { break };
        if let Some(done) = shelf.poll(at) {
            assert_eq!(done.outcome, Outcome::Failed(Failure::Gone));
            ended += 1;
        }
    }
    assert_eq!((ended, shelf.next()), (8, None));
}
