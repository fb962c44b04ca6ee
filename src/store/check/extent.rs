//! The chunks of one extent as they will be when the journal's records are carried out over its
//! pages.
//!
//! It follows `commit::carry_out`, without a machine around it: only which slot a chunk has, which
//! blocks are there, and which of them the next opening takes from the journal instead.

use crate::base::{BLOCKS_PER_CHUNK, BlockRun, LayerId};
use crate::store::door::ChunkId;
use crate::store::page::{NO_SLOT, PageEntry};
use crate::store::record::{Empty, Fill, Mend, Payload, Record};
use std::collections::BTreeMap;

/// One chunk of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub slot: u32,
    pub data: u16,
    pub zero: u16,
    /// Blocks whose newest payload is in the journal.
    pub pending: u16,
    pub crcs: [u32; 16],
}

impl Chunk {
    const EMPTY: Chunk = Chunk {
        slot: NO_SLOT,
        data: 0,
        zero: 0,
        pending: 0,
        crcs: [0; 16],
    };

    /// Whether it holds its slot.
    pub fn has_slot(&self) -> bool {
        self.data | self.pending != 0
    }

    /// Takes a block in from the journal; one that is lost there has its checksum over the slot.
    fn take(&mut self, block: u32, crc: u32, lost: bool) {
        let bit = 1 << block;
        if !lost {
            self.pending |= bit;
            return;
        }
        self.pending &= !bit;
        self.data |= bit;
        self.zero &= !bit;
        self.crcs[block as usize] = crc;
    }

    /// Blocks that must be right in the slot.
    pub fn settled(&self) -> u16 {
        self.data & !self.pending
    }
}

/// The chunks of an extent, by place and layer.
#[derive(Debug, Default)]
pub(super) struct Extent {
    pub chunks: BTreeMap<(u8, LayerId), Chunk>,
}

impl Extent {
    /// Puts in what a page says; false where the chunk is there already.
    pub fn install(&mut self, entry: &PageEntry) -> bool {
        let chunk = Chunk {
            slot: entry.slot,
            data: entry.data,
            zero: entry.zero,
            pending: 0,
            crcs: entry.crcs,
        };
        self.chunks
            .insert((entry.place, entry.layer), chunk)
            .is_none()
    }

    /// Carries one record out. The blocks of `lost` (counted from the first of the run) are damaged
    /// in the journal: their checksums stand over a slot that may not match them.
    pub fn carry_out(&mut self, record: &Record, lost: u16, has_parent: bool) {
        match record {
            Record::Fill(fill) => self.fill(fill, lost),
            Record::Mend(mend) => self.mend(mend, lost),
            Record::DropReplica(_) => self.chunks.clear(),
            Record::Data {
                at,
                run,
                slot,
                crcs,
                ..
            } => {
                let chunk = self.chunks.entry(key(at)).or_insert(Chunk::EMPTY);
                chunk.slot = *slot;
                take_data(chunk, *run, crcs, lost);
            }
            Record::Chunk { at, slot, crcs, .. } => {
                let chunk = Chunk {
                    slot: *slot,
                    data: u16::MAX,
                    zero: 0,
                    pending: 0,
                    crcs: *crcs,
                };
                self.chunks.insert(key(at), chunk);
            }
            Record::Zero { at, run, empty, .. } => {
                self.zero(key(at), run.mask(), has_parent, *empty)
            }
            Record::ZeroChunks {
                at, count, empty, ..
            } => {
                let (first, layer) = key(at);
                (first..first + *count as u8)
                    .for_each(|place| self.zero((place, layer), u16::MAX, has_parent, *empty));
            }
            Record::PutVolume(_) | Record::DropVolume(_) => {}
            Record::Fence { .. } | Record::Mark { .. } => {}
        }
    }

    fn fill(&mut self, fill: &Fill, lost: u16) {
        let chunk = self.chunks.entry(key(&fill.at)).or_insert(Chunk::EMPTY);
        let stays = if fill.is_whole() { 0 } else { fill.data };
        chunk.pending &= !fill.blocks;
        chunk.data &= !fill.blocks | stays;
        chunk.zero = chunk.zero & !fill.blocks | fill.zero;
        if fill.data != 0 {
            chunk.slot = fill.slot;
        }
        match fill.payload {
            Payload::Slot => (chunk.data, chunk.crcs) = (u16::MAX, fill.crcs),
            Payload::Batch => {
                let blocks = BlockRun::runs_of(fill.data).flat_map(BlockRun::blocks);
                for (n, block) in blocks.enumerate() {
                    chunk.take(block, fill.crcs[block as usize], lost & (1 << n) != 0);
                }
            }
        }
        self.settle(key(&fill.at), fill.empty);
    }

    /// What a mend has counts where the checksum is the one of the block; where the journal's own is it already, nothing changes.
    fn mend(&mut self, mend: &Mend, lost: u16) {
        let Some(chunk) = self.chunks.get_mut(&key(&mend.at)) else {
            return;
        };
        let blocks = BlockRun::runs_of(mend.blocks).flat_map(BlockRun::blocks);
        for (n, block) in blocks.enumerate() {
            let (at, bit) = (block as usize, 1 << block);
            let is_it = chunk.settled() & bit != 0 && chunk.crcs[at] == mend.crcs[at];
            if is_it && lost & (1 << n) == 0 {
                chunk.pending |= bit;
            }
        }
    }

    fn zero(&mut self, key: (u8, LayerId), mask: u16, has_parent: bool, empty: Empty) {
        if has_parent || empty == Empty::Tombstone {
            self.chunks.entry(key).or_insert(Chunk::EMPTY);
        }
        let Some(chunk) = self.chunks.get_mut(&key) else {
            return;
        };
        chunk.pending &= !mask;
        chunk.data &= !mask;
        chunk.zero = if has_parent {
            chunk.zero | mask
        } else {
            chunk.zero & !mask
        };
        self.settle(key, empty);
    }

    /// A chunk without data has no slot, and one with nothing in it is gone, or a tombstone.
    fn settle(&mut self, key: (u8, LayerId), empty: Empty) {
        let Some(chunk) = self.chunks.get_mut(&key) else {
            return;
        };
        if !chunk.has_slot() {
            chunk.slot = NO_SLOT;
        }
        if !chunk.has_slot() && chunk.zero == 0 && empty == Empty::Forgotten {
            self.chunks.remove(&key);
        }
    }
}

fn take_data(chunk: &mut Chunk, run: BlockRun, crcs: &[u32; 16], lost: u16) {
    debug_assert!(run.end() <= BLOCKS_PER_CHUNK);
    for (n, block) in run.blocks().enumerate() {
        chunk.take(block, crcs[n], lost & (1 << n) != 0);
    }
}

fn key(at: &ChunkId) -> (u8, LayerId) {
    (at.chunk.in_extent() as u8, at.layer)
}
