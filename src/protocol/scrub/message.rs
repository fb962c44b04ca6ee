//! What a disk that lost blocks and one that may have them say to one another. Payload travels beside a message, never in it.

use crate::base::{ChunkId, DiskId, PgId};

/// What stands on every frame between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MendHeader {
    pub pg: PgId,
    /// The disk that asks.
    pub asker: DiskId,
    /// Its number of the question, which comes back with the answer.
    pub id: u64,
}

/// Which blocks are asked for: those of a chunk of one layer that have these checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MendAsk {
    pub at: ChunkId,
    pub blocks: u16,
    /// By the places of the blocks; 0 for the others.
    pub crcs: [u32; 16],
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MendAnswer {
    /// These of them are here, each in its place of the payload; maybe none.
    Blocks(MendAsk),
    /// It holds no such PG, or has too much to do.
    NotNow,
}

impl MendAsk {
    /// The same of some of its blocks.
    pub fn of(mut self, blocks: u16) -> MendAsk {
        self.blocks &= blocks;
        for (place, crc) in self.crcs.iter_mut().enumerate() {
            if self.blocks >> place & 1 == 0 {
                *crc = 0;
            }
        }
        self
    }
}
