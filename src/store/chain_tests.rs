//! The chain of batches on rings whose bytes are laid by hand.

use super::*;
use crate::base::{BlockRun, ChunkNo, FamilyId, LayerId, PgId, StoreId};
use crate::store::door::{ChunkId, Stamp};

const RING: usize = 12 * BLOCK as usize;

fn superblock() -> Superblock {
    let mut superblock = Superblock::EMPTY;
    superblock.store = StoreId([1; 16]);
    superblock.incarnation = 9;
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
        let tail = Position {
            offset: 6 * BLOCK,
            batch: 10,
            previous: 7,
        };
        let (mut chain, mut taken) = (Chain::new(&self.superblock, tail), Vec::new());
        loop {
            match chain.step() {
                Step::Read { offset, len } => {
                    let (from, to) = (offset as usize, (offset + len) as usize);
                    chain.feed(len, Some(&self.bytes[from..to]));
                }
                Step::Batch(found) => {
                    taken.push((found.header.batch, found.offset / BLOCK, found.lost.len()));
                }
                Step::End => return (taken, chain),
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
