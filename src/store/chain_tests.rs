//! The chain of batches on rings whose bytes are laid by hand.

use super::*;
use crate::base::{BlockRun, ChunkNo, FamilyId, LayerId, PgId, StoreId};
use crate::store::door::{ChunkId, Stamp};

const RING: usize = 12 * BLOCK as usize;
/// Where replay starts.
const TAIL: Position = Position {
    offset: 6 * BLOCK,
    batch: 10,
    previous: 7,
};

fn superblock() -> Superblock {
    let mut superblock = Superblock::EMPTY;
    superblock.store = StoreId([1; 16]);
    superblock.incarnation = 1;
    superblock.geometry.journal_len = RING as u64;
    superblock.geometry.slots = 8;
    superblock
}

/// A write of `blocks` blocks of zeroes.
fn record(blocks: u32) -> Record {
    let at = ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(0),
    };
    let run = BlockRun::new(0, blocks).unwrap();
    let mut crcs = [0; 16];
    for (crc, block) in crcs.iter_mut().zip(run.blocks()) {
        *crc = crc::of_block(at.layer, at.chunk.block(block), &[0; BLOCK as usize]);
    }
    let (slot, pg, stamp) = (0, PgId(0), Stamp::default());
    Record::Data {
        at,
        run,
        slot,
        pg,
        range: None,
        stamp,
        crcs,
    }
}

/// A ring under construction: batches are put where the test says.
struct Ring {
    bytes: Vec<u8>,
    superblock: Superblock,
}

/// Number, incarnation, what it follows, `durable_through`.
type Name = (u64, u64, u32, u64);

impl Ring {
    fn new() -> Ring {
        let (bytes, superblock) = (vec![0; RING], superblock());
        Ring { bytes, superblock }
    }

    /// Closed at a place.
    fn closed(end: Position) -> Ring {
        let mut ring = Ring::new();
        (ring.superblock.end, ring.superblock.closed) = (end, true);
        ring
    }

    /// Puts a batch with `blocks` of payload at a block of the ring; returns the crc of its header.
    fn put(&mut self, at: u64, (batch, incarnation, previous, durable): Name, blocks: u32) -> u32 {
        let records: Vec<Record> = (blocks > 0).then(|| record(blocks)).into_iter().collect();
        let header = Header {
            store: self.superblock.store,
            instance_key: self.superblock.instance_key,
            batch,
            offset: at * BLOCK,
            previous,
            payload_blocks: blocks,
            tail: 10,
            durable_through: durable,
            incarnation,
            checkpoint: 0,
        };
        let mut bytes = Vec::new();
        let crc = batch::encode(&header, records.iter(), &mut bytes);
        let start = (at * BLOCK) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        crc
    }

    fn tear(&mut self, block: u64) {
        self.bytes[(block * BLOCK) as usize] ^= 0xff;
    }

    /// What replay takes from batch 10 on, which lies at block 6: offsets in blocks, and payload that is lost.
    fn follow(&self) -> (Vec<(u64, u64, usize)>, Chain) {
        let (taken, chain, _) = self.read(Survey::Whole);
        (taken, chain)
    }

    /// As [`Ring::follow`], after a survey of the caller's choice, and with the bytes that were read. The ring is zero as far
    /// as the superblock has it longer than it was laid.
    fn read(&self, survey: Survey) -> (Vec<(u64, u64, usize)>, Chain, u64) {
        let mut chain = Chain::new(&self.superblock, TAIL, survey);
        let (mut taken, mut asked) = (Vec::new(), 0);
        loop {
            match chain.step() {
                Step::Read { offset, len } => {
                    asked += len;
                    let laid = self.bytes.iter().skip(offset as usize);
                    let bytes: Vec<u8> = laid
                        .copied()
                        .chain(std::iter::repeat(0))
                        .take(len as usize)
                        .collect();
                    chain.feed(len, Some(&bytes));
                }
                Step::Batch(found) => {
                    taken.push((found.header.batch, found.offset / BLOCK, found.lost.len()));
                }
                Step::End => return (taken, chain, asked),
            }
        }
    }
}

/// Batch 11 was torn at the ring's end; the next life's batch 11 did not fit there.
fn torn_and_replaced() -> (Ring, u32) {
    let mut ring = Ring::new();
    let ten = ring.put(6, (10, 1, 7, 9), 0);
    ring.put(7, (11, 1, ten, 9), 1);
    ring.tear(8);
    let eleven = ring.put(0, (11, 2, ten, 10), 4);
    ring.superblock.incarnation = 2;
    ring.superblock.end = Position {
        offset: 7 * BLOCK,
        batch: 11,
        previous: ten,
    };
    (ring, eleven)
}

#[test]
fn a_torn_batch_gives_way_to_the_one_that_the_next_life_wrote_at_the_start_of_the_ring() {
    let (mut ring, eleven) = torn_and_replaced();
    ring.put(5, (12, 2, eleven, 11), 0);
    let (taken, chain) = ring.follow();
    assert_eq!(taken, [(10, 6, 0), (11, 0, 0), (12, 5, 0)]);
    assert!(!chain.is_broken());
}

#[test]
fn where_the_batch_that_was_acknowledged_rotted_its_torn_rival_is_not_taken_for_it() {
    let (mut ring, eleven) = torn_and_replaced();
    ring.put(5, (12, 2, eleven, 11), 0);
    ring.tear(0);
    assert!(ring.follow().1.is_broken());
}

#[test]
fn a_torn_batch_that_was_never_acknowledged_ends_the_chain() {
    let mut ring = Ring::new();
    let ten = ring.put(6, (10, 1, 7, 9), 0);
    ring.put(7, (11, 1, ten, 10), 1);
    ring.tear(8);
    let (taken, chain) = ring.follow();
    assert_eq!(taken, [(10, 6, 0)]);
    assert!(!chain.is_broken() && chain.torn.is_some());
}

#[test]
fn headers_with_numbers_that_nobody_writes_are_none() {
    for durable in [11, 12, u64::MAX] {
        let mut ring = Ring::new();
        let ten = ring.put(6, (10, 1, 7, 9), 0);
        ring.put(7, (11, 1, ten, durable), 0);
        assert_eq!(ring.follow().0, [(10, 6, 0)], "durable through {durable}");
    }
}

#[test]
fn headers_of_a_later_life_than_the_superblock_knows_are_in_the_chain() {
    let mut ring = Ring::new();
    let ten = ring.put(6, (10, 9, 7, 9), 0);
    let eleven = ring.put(7, (11, 12, ten, 10), 0);
    ring.put(8, (12, 12, eleven, 11), 0);
    let (taken, chain) = ring.follow();
    assert_eq!(taken, [(10, 6, 0), (11, 7, 0), (12, 8, 0)]);
    assert_eq!(chain.incarnation_seen, 12);
}

#[test]
fn of_a_closed_journal_only_the_places_of_the_next_batches_are_read() {
    let mut ring = Ring::closed(TAIL);
    ring.superblock.geometry.journal_len = 1 << 30;
    // Batches of the last round, in front of the tail and behind it.
    let nine = ring.put(5, (9, 1, 6, 8), 0);
    ring.put(6, (2, 1, nine, 1), 0);
    let (_, chain, asked) = ring.read(Survey::AsNeeded);
    assert!(asked <= 2 * GLANCE_LEN + 4 * READ_LEN + 2 * BATCH_LEN_MAX);
    assert!(!chain.is_broken() && chain.torn.is_none() && chain.next.batch == 10);
}

#[test]
fn a_life_after_the_close_that_the_superblocks_deny_is_surveyed_whole() {
    // Batch 10 is lost; 11, which says that it was acknowledged, lies behind it or at the ring's start.
    for (at, far) in [(7, 9), (0, 5)] {
        let mut ring = Ring::closed(TAIL);
        ring.superblock.geometry.journal_len = 64 * BATCH_LEN_MAX;
        ring.put(at, (11, 2, 8, 10), 0);
        ring.put(far, (12, 2, 8, 11), 0);
        let (_, chain, asked) = ring.read(Survey::AsNeeded);
        assert!(asked > 64 * BATCH_LEN_MAX);
        assert!(chain.is_broken() && chain.durable_once == 11);
    }
}

#[test]
fn a_glance_that_finds_batches_comes_to_what_a_whole_survey_comes_to() {
    let mut ring = Ring::closed(TAIL);
    let ten = ring.put(6, (10, 9, 7, 9), 0);
    ring.put(7, (11, 12, ten, 10), 0);
    let (taken, chain, _) = ring.read(Survey::AsNeeded);
    assert_eq!(taken, ring.follow().0);
    assert_eq!(chain.incarnation_seen, 12);
}

#[test]
fn a_chain_that_ends_before_the_close_is_broken() {
    let mut ring = Ring::new();
    let ten = ring.put(6, (10, 1, 7, 9), 0);
    let eleven = ring.put(7, (11, 1, ten, 9), 1);
    let (offset, batch, previous) = (9 * BLOCK, 12, eleven);
    ring.superblock.end = Position {
        offset,
        batch,
        previous,
    };
    ring.superblock.closed = true;
    for survey in [Survey::Whole, Survey::AsNeeded] {
        let (taken, chain, _) = ring.read(survey);
        assert_eq!(taken, [(10, 6, 0), (11, 7, 0)]);
        assert!(!chain.is_broken());
    }
    // Its payload is lost: what was closed was durable, so it is not taken for torn.
    ring.tear(8);
    assert_eq!(ring.read(Survey::AsNeeded).0, [(10, 6, 0), (11, 7, 1)]);
    ring.tear(7);
    assert!(ring.read(Survey::AsNeeded).1.is_broken());
    // Another batch 11 than the one that was last.
    ring.put(7, (11, 1, ten, 8), 1);
    assert!(ring.read(Survey::AsNeeded).1.is_broken());
}

#[test]
fn what_an_opening_could_not_read_does_not_come_back_at_the_next() {
    let mut ring = Ring::new();
    let ten = ring.put(6, (10, 1, 7, 9), 0);
    ring.put(7, (11, 1, ten, 9), 1);
    ring.tear(8);
    let (taken, chain) = ring.follow();
    assert_eq!(taken, [(10, 6, 0)]);
    // The next incarnation found its end there, and read nothing of batch 11, which can be read again now.
    (ring.superblock.incarnation, ring.superblock.end) = (2, chain.next);
    ring.tear(8);
    assert_eq!(ring.follow().0, [(10, 6, 0)]);
    assert!(!ring.follow().1.is_broken());
    // Its own batch 11 is in the chain.
    ring.put(7, (11, 2, ten, 10), 0);
    assert_eq!(ring.follow().0, [(10, 6, 0), (11, 7, 0)]);
}
